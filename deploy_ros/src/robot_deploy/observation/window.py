"""The window (T_o, ...) a policy reads, at the policy's rate, from rings of any rates; or the reason there is none.

The window ends at the newest time for which every source has a sample; its steps lie ``1 / fps`` apart. States
are interpolated between the samples around each step, images are the last ones at or before it. No value is
ever made up: not zeros, not the first sample, not a repeated one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.features import is_image
from robot_datasets.mapping import ConfigError
from robot_datasets.resampling import LATEST_BEFORE, LINEAR, SLERP, ResamplingError, resample, step_times_ns
from robot_deploy.observation.rings import Decoder, Reason, SampleRing
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why there is no window.

    Attributes:
        source: Name of the source.
        reason: What is wrong with it.
        detail: Figures for a person, with units.
    """

    source: str
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.reason.value}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a policy reads.

    Attributes:
        arrays: Feature name -> (T_o, ...): float32 states; images (T_o, H, W, C) uint8.
        frames: Image features that are left encoded for another process to decode: T_o frames each.
        time_ns: Time of the last step, in the clock of the stamps [ns].
        steps_ns: Times of all steps, (T_o,) int64 [ns].
        ages_ms: Source -> age of its newest sample when the window was made [ms].
    """

    arrays: Mapping[str, np.ndarray]
    time_ns: int
    ages_ms: Mapping[str, float]
    frames: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    steps_ns: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """Where a feature comes from: components `names` of a source, in this order; all of them if empty."""

    source: str
    names: tuple[str, ...] = ()


class WindowBuilder:
    """Makes windows from rings."""

    def __init__(
        self,
        spec: PolicySpec,
        rings: Mapping[str, SampleRing],
        features: Mapping[str, tuple[FeatureSource, ...]],
        *,
        decode: Decoder | None = None,
        encoded: bool = False,
    ) -> None:
        """Check that the features can be built.

        Args:
            spec: The policy's contract.
            rings: The sources' rings, by name.
            features: For every feature of the policy, the parts that are concatenated to it.
            decode: From an image source's payload to (H, W, C) uint8.
            encoded: Leave images as they are, in `Window.frames`; their reader then checks size and contrast.

        Raises:
            ConfigError: A feature is missing, or its parts do not give its components in its order.
        """
        self._spec, self._rings, self._features, self._decode = spec, rings, features, decode
        self._offsets_ns = step_times_ns(np.arange(1 - spec.n_obs_steps, 1), spec.fps)
        self._encoded = {name for name in spec.observation if encoded and is_image(name)}
        for name, feature in spec.observation.items():
            if name not in features:
                raise ConfigError(f"features: {unknown_name('observation', name, features)}")
            names: list[str] = []
            for part in features[name]:
                if part.source not in rings:
                    raise ConfigError(f"features.{name}: {unknown_name('source', part.source, rings)}")
                names += self._components(name, part)
            if is_image(name):
                if len(features[name]) != 1 or rings[features[name][0].source].config.kind != "image":
                    raise ConfigError(f"features.{name}: expected one source of kind 'image'")
            elif feature.names and tuple(names) != feature.names:
                raise ConfigError(
                    f"features.{name}: gives {names}, but the policy reads {list(feature.names)}; "
                    "list the names in the policy's order"
                )
            elif (len(names),) != feature.shape:
                raise ConfigError(f"features.{name}: gives {len(names)} numbers, expected {feature.shape}")
        self._used = sorted({part.source for name in spec.observation for part in features[name]})

    def _components(self, feature: str, part: FeatureSource) -> list[str]:
        config = self._rings[part.source].config
        if config.kind != "state":
            return list(part.names) or ([""] * 7 if config.kind == "pose" else [])
        for name in part.names:
            if name not in config.names:
                raise ConfigError(f"features.{feature}: {unknown_name('component', name, config.names)}")
        return list(part.names or config.names)

    def build(self, now_ns: int) -> Window | list[Problem]:
        """Make the window, or say what is in its way.

        Args:
            now_ns: The clock of the stamps now [ns].
        """
        problems = self.problems(now_ns)
        if problems:
            return problems
        newest = {source: self._rings[source].newest_ns or 0 for source in self._used}
        end_ns = min(newest.values())
        clock = end_ns + self._offsets_ns
        values: dict[str, np.ndarray] = {}
        frames: dict[str, tuple[bytes, ...]] = {}
        for source in self._used:
            made = self._resampled(source, clock)
            if isinstance(made, Problem):
                problems.append(made)
            elif isinstance(made, tuple):
                frames[source] = made
            else:
                values[source] = made
        if problems:
            return problems
        arrays = {n: self._assembled(n, values) for n in self._spec.observation if n not in self._encoded}
        for name, array in arrays.items():
            want = (self._spec.n_obs_steps, *self._spec.observation[name].shape)
            if any(w and w != h for w, h in zip(want, array.shape, strict=True)):
                source = self._features[name][0].source
                problems.append(
                    Problem(source=source, reason=Reason.WRONG_SIZE, detail=f"{array.shape}, expected {want}")
                )
        ages = {source: (now_ns - newest[source]) * 1e-6 for source in self._used}
        left = {name: frames[self._features[name][0].source] for name in self._encoded}
        return problems or Window(arrays=arrays, time_ns=end_ns, ages_ms=ages, frames=left, steps_ns=clock)

    def problems(self, now_ns: int) -> list[Problem]:
        """What is wrong with the sources now; cheap enough for every command period.

        Args:
            now_ns: The clock of the stamps now [ns].
        """
        return [p for source in self._used if (p := self._source_problem(source, now_ns)) is not None]

    def _source_problem(self, source: str, now_ns: int) -> Problem | None:
        ring = self._rings[source]
        if ring.newest_ns is None:
            return Problem(source=source, reason=Reason.MISSING, detail=_refusals(ring))
        age = (now_ns - ring.newest_ns) * 1e-6
        if age > ring.config.max_age_ms:
            detail = f"{age:.0f} ms old, at most {ring.config.max_age_ms:g}{_refusals(ring, '; ')}"
            return Problem(source=source, reason=Reason.STALE, detail=detail)
        frozen = ring.config.frozen_ms
        if frozen is not None and ring.unchanged_ns * 1e-6 > frozen:
            detail = f"the same for {ring.unchanged_ns * 1e-6:.0f} ms"
            return Problem(source=source, reason=Reason.FROZEN, detail=detail)
        return None

    def _resampled(self, source: str, clock: np.ndarray) -> np.ndarray | tuple[bytes, ...] | Problem:
        ring = self._rings[source]
        times, payloads = ring.samples(int(clock[0]))
        gap = ring.config.max_gap_ms * 1e-3
        try:
            if ring.config.kind == "image":
                rows, _ = resample(times, np.arange(len(times)), clock, policy=LATEST_BEFORE, max_age=gap)
                chosen = [payloads[row] for row in rows]
                return self._decoded(source, chosen) if not self._encoded else tuple(map(_as_bytes, chosen))
            numbers = np.stack([np.asarray(p, dtype=np.float64) for p in payloads])
            if ring.config.kind == "state":
                return resample(times, numbers, clock, policy=LINEAR, max_age=gap)[0]
            place = resample(times, numbers[:, :3], clock, policy=LINEAR, max_age=gap)[0]
            turn = resample(times, numbers[:, 3:], clock, policy=SLERP, max_age=gap)[0]
            return np.concatenate([place, turn], axis=1)
        except ResamplingError as error:
            return Problem(source=source, reason=Reason.GAP, detail=str(error))

    def _decoded(self, source: str, payloads: list[object]) -> np.ndarray | Problem:
        frames: list[np.ndarray] = []
        for index, payload in enumerate(payloads):
            if index and payload is payloads[index - 1]:
                frames.append(frames[-1])
                continue
            frame = self._decode(payload) if self._decode is not None else np.asarray(payload)
            if frame.ndim != 3 or frame.dtype != np.uint8 or (frames and frame.shape != frames[0].shape):
                detail = f"{frame.dtype} {frame.shape}, expected uint8 (height, width, channels)"
                return Problem(source=source, reason=Reason.WRONG_SIZE, detail=detail)
            least = self._rings[source].config.min_contrast
            if least > 0.0 and float(frame.std()) < least:
                detail = f"contrast {float(frame.std()):.1f}, at least {least:g}"
                return Problem(source=source, reason=Reason.BLANK, detail=detail)
            frames.append(frame)
        return np.stack(frames)

    def _assembled(self, feature: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
        if is_image(feature):
            return values[self._features[feature][0].source]
        parts: list[np.ndarray] = []
        for part in self._features[feature]:
            config = self._rings[part.source].config
            array = values[part.source]
            if config.kind == "state" and part.names:
                array = array[:, [config.names.index(name) for name in part.names]]
            parts.append(array)
        return np.concatenate(parts, axis=1).astype(np.float32)


def _as_bytes(payload: object) -> bytes:
    assert isinstance(payload, (bytes, bytearray, memoryview))
    return bytes(payload)


def _refusals(ring: SampleRing, before: str = "") -> str:
    if not ring.refused:
        return ""
    return before + "refused: " + ", ".join(f"{n} x {reason.value}" for reason, n in ring.refused.items())
