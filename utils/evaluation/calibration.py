"""Learning on a validation set how sure an answer is, and below which probability to give none."""

from collections.abc import Sequence
from pathlib import Path

from models.segvpr import SegVPR
from utils.evaluation.metrics import PRECISIONS, recall_at_precision
from utils.evaluation.recall import SetResult
from utils.retrieval.confidence import Calibration, apart, calibration_file, fit_curve
from utils.retrieval.settings import EXACT, RetrievalSettings
from utils.retrieval.store import weights_digest
from utils.system.logs import LOGGER
from utils.system.tables import align


def calibrate(
    checkpoint: str | Path,
    model: SegVPR,
    result: SetResult,
    retrieval: RetrievalSettings = EXACT,
    precisions: Sequence[float] = (),
) -> Calibration:
    """Write the calibration of a checkpoint beside it, and log the thresholds.

    Parameters
    ----------
    result : of the validation set; its first threshold counts.
    precisions : 0..1, further ones for which a threshold is chosen.

    Raises
    ------
    ValueError, OSError : the gallery lies at one place, or the file cannot be written.
    """
    within_m, ratios, right = result.set.thresholds_m[0], result.ratio, result.found
    slope, intercept = fit_curve(ratios, right)
    made = Calibration(
        slope,
        intercept,
        within_m,
        apart(within_m),
        weights_digest(model),
        retrieval.pca_dim,
        retrieval.pca_whiten,
        len(right),
        int(right.sum()),
        thresholds={},
    )
    rows = [["precision", "right answers", "--reject"]]
    for precision in sorted({*PRECISIONS, *precisions}, reverse=True):
        recall, ratio = recall_at_precision(ratios, right, precision)
        least = None if ratio is None else float(made.probability(ratio))
        made.thresholds[f"{precision:g}"] = least
        rows.append([f"{100 * precision:g}%", f"{100 * recall:.1f}%", "-" if least is None else f"{least:.4f}"])
    file = calibration_file(checkpoint)
    made.save(file)
    if not slope:
        LOGGER.warning(
            "%s: ratios do not tell right from wrong here, so all answers get one probability", result.set.name
        )
    LOGGER.info("confidence, learnt on %s: %s\n%s", result.set.name, file, "\n".join(align(rows)))
    return made
