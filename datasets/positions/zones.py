"""UTM zones: degrees to metres and back, and the one zone in which all images of a set are placed."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import utm

LIMITS = {"latitude": (-80.0, 84.0), "longitude": (-180.0, 180.0)}
"""Where UTM is defined, in degrees."""
# beyond this, even differences of projected positions are useless
_FARTHEST_DEGREES = 30.0
# a town on the equator has one zone; images up to so many degrees beyond it are no mistake
_BEYOND_EQUATOR = 1.0


class Zone(NamedTuple):
    """A UTM zone: number 1..60 and hemisphere."""

    number: int
    northern: bool

    def __str__(self) -> str:
        return f"{self.number}{'N' if self.northern else 'S'}"

    @classmethod
    def of(cls, latitude: float, longitude: float) -> "Zone":
        """The zone in which a point lies, the exceptions of Norway and Svalbard included."""
        return cls(int(utm.latlon_to_zone_number(latitude, longitude)), latitude >= 0)

    @classmethod
    def parse(cls, text: str) -> "Zone":
        """`30N` or `30S`: number and hemisphere (not the letter of a latitude band)."""
        number, hemisphere = text[:-1], text[-1:].upper()
        if not (number.isdecimal() and 1 <= int(number) <= 60 and hemisphere in ("N", "S")):
            raise ValueError(
                f"{text!r} is no UTM zone: give a number from 1 to 60 and N or S for the hemisphere, as 30N"
            )
        return cls(int(number), hemisphere == "N")

    def project(self, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """(N,) degrees -> (N, 2) east and north in metres in this zone, wherever the points lie."""
        east, north, *_ = utm.from_latlon(
            np.asarray(latitudes, np.float64),
            np.asarray(longitudes, np.float64),
            force_zone_number=self.number,
            force_northern=self.northern,
        )
        return np.stack([east, north], axis=-1)

    def unproject(self, positions: np.ndarray) -> np.ndarray:
        """(N, 2) east and north in metres in this zone -> (N, 2) latitude and longitude in degrees."""
        east, north = np.asarray(positions, np.float64).T
        return np.stack(utm.to_latlon(east, north, self.number, northern=self.northern, strict=False), axis=-1)

    def degrees_off(self, longitudes: np.ndarray) -> np.ndarray:
        """Degrees of longitude between points and the zone's central meridian, of the shape given."""
        return np.abs((longitudes - (6 * self.number - 183) + 180) % 360 - 180)

    def holds(self, east: float, north: float) -> bool:
        """Whether metres are possible in this zone and hemisphere, with room for a set that reaches over its border."""
        low, high = (0.0, 9.4e6) if self.northern else (1e6, 1e7)
        return 1e5 <= east < 1e6 and low <= north <= high

    def beside(self) -> list["Zone"]:
        """The zones to its west and east, and the same three in the other hemisphere."""
        numbers = [(self.number + step - 1) % 60 + 1 for step in (0, -1, 1)]
        return [Zone(number, north) for north in (self.northern, not self.northern) for number in numbers][1:]


def common_zone(degrees: np.ndarray) -> tuple[Zone, str]:
    """The zone in which most of the points (N, 2), latitude and longitude, lie, and in words why; of a tie the first."""
    zones = [Zone.of(*point) for point in degrees.tolist()]
    number, northern = (Counter(part).most_common(1)[0][0] for part in zip(*zones))
    chosen = Zone(number, northern)
    others = Counter(zone for zone in zones if zone != chosen)
    if not others:
        return chosen, "that of all positions in degrees"
    elsewhere = ", ".join(f"{count} in {zone}" for zone, count in others.most_common(3))
    share = f"{len(zones) - others.total()} of {len(zones)}"
    return chosen, f"that of {share} positions in degrees; {elsewhere}: give gallery and queries the same --zone"


def check_zone(zone: Zone, degrees: np.ndarray, names: Sequence[str]) -> None:
    """ValueError if points (N, 2), latitude and longitude, cannot be placed in a zone; names the image to blame."""
    latitudes, longitudes = degrees.T
    own, _ = common_zone(degrees)

    def first(chosen: np.ndarray) -> str:
        index = int(np.flatnonzero(chosen)[0])
        return f"{names[index]}: {latitudes[index]:.4f}, {longitudes[index]:.4f}"

    far = zone.degrees_off(longitudes) > _FARTHEST_DEGREES
    if own.number != zone.number and far.mean() > 0.5:
        raise ValueError(f"{first(far)} and most others lie too far from UTM zone {zone}; give --zone {own}")
    beyond = latitudes < -_BEYOND_EQUATOR if zone.northern else latitudes > _BEYOND_EQUATOR
    if beyond.mean() > 0.5:
        raise ValueError(
            f"{first(beyond)} and most others lie in the {'southern' if zone.northern else 'northern'} hemisphere, not in "
            f"UTM zone {zone} (N and S are hemispheres, not latitude bands); give --zone {own}"
        )
    east, north = zone.project(latitudes, longitudes).T
    far |= (east >= 1e6) & (north >= 0) & (north < 1e6)  # such a name would be read as swapped
    if far.any():
        index = int(np.flatnonzero(far)[0])
        swapped = zone.degrees_off(latitudes[index]) <= 3 and abs(longitudes[index]) <= LIMITS["latitude"][1]
        hint = " (are latitude and longitude swapped?)" if swapped else ""
        raise ValueError(
            f"{first(far)} is too far from UTM zone {zone} of this set{hint}; correct it, or put the images of distant "
            "regions into sets of their own"
        )
