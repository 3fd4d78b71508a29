"""Learning rate schedules."""


def poly(base: float, step: float, max_steps: float, power: float = 0.9) -> float:
    """``base * (1 - step / max_steps) ** power``, zero from `max_steps` on (protocol, section 5)."""
    return base * (1 - min(step, max_steps) / max_steps) ** power
