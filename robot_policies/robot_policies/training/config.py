"""Configuration of a training run: the schema of ``configs/robot_configs/train.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from robot_datasets.features import STATE
from robot_datasets.goals import GoalSpec
from robot_datasets.shared_view import STATE_IS_VALID, ViewOptions
from robot_policies.configuration import ConfigError, from_mapping


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One store of a mixture.

    Attributes:
        path: The episode store.
        weight: Share of the samples, in any unit.
        view: How it is brought to ``dataset.layout``, if that is set.
        selection: File of step weights from ``robot-policies retrieve``; empty draws all windows equally often.
        segments: Tags of labelled segments to train on, such as ``recovery`` and ``correction``; empty trains on all
            steps. See `robot_datasets.segments`.
        actions: False for a video: its actions are not read, and it trains the prediction of frames alone.
    """

    path: str
    weight: float = 1.0
    view: ViewOptions = field(default_factory=ViewOptions)
    selection: str = ""
    segments: tuple[str, ...] = ()
    actions: bool = True


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What to train on.

    Attributes:
        path: The episode store. Leave empty if `mixture` is given.
        mixture: Several stores with sampling weights. The first is the reference: its features, statistics and
            units are the policy's, and validation uses its episodes.
        observation: Observation features the policy reads.
        goal: Goals for the policy, drawn from what each episode reaches later; null for none.
        instruction: Whether the policy is told the instruction of each episode.
        future: Frames for the policy to predict: cameras, and how many steps after now.
        val_ratio: Share of episodes held out for validation; 0 trains on all.
        max_train_episodes: Upper limit on training episodes, drawn by `split_seed`.
        split_seed: Seed of the split; independent of the training seed, so that runs are comparable.
        layout: Bring every store to a shared layout (``shared``), so that different robots mix: states and actions
            are padded and masked, see `robot_datasets.shared_view`. Null mixes stores of equal features.
        image_size: With `layout`: height and width that the frames of all stores are brought to [px]; null leaves them.
        rescale: How the other stores of a mixture are normalised by their own statistics: the mode by feature,
            ``default`` for the rest. Give what the policy's ``normalization`` says; see `robot_datasets.mixture`.
        statistics: ``own``: each store of a mixture is normalised by its own statistics, the first one's being the
            policy's. ``pooled``: all share their units, and the policy is normalised by all of them together.
    """

    path: str = ""
    mixture: tuple[SourceConfig, ...] = ()
    observation: tuple[str, ...] = (STATE,)
    goal: GoalSpec | None = None
    instruction: bool = False
    future: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    val_ratio: float = 0.02
    max_train_episodes: int | None = None
    split_seed: int = 42
    layout: str | None = None
    image_size: tuple[int, ...] | None = None
    rescale: Mapping[str, str] = field(default_factory=lambda: {"default": "min_max"})
    statistics: Literal["own", "pooled"] = "own"

    def __post_init__(self) -> None:
        _require(
            bool(self.path) != bool(self.mixture),
            "dataset",
            f"set either path or mixture; path is '{self.path}' (dataset.path='' unsets it), "
            f"mixture has {len(self.mixture)} stores",
        )
        _require(len(self.observation) > 0, "dataset.observation", "name at least one feature")
        _require(0 <= self.val_ratio < 1, "dataset.val_ratio", f"expected 0 <= x < 1, got {self.val_ratio}")
        _require(all(s.weight > 0 for s in self.mixture), "dataset.mixture", "weights must be > 0")
        _positive("dataset", self, "max_train_episodes")
        if self.image_size is not None:
            fits = len(self.image_size) == 2 and min(self.image_size) > 0
            _require(fits, "dataset.image_size", f"expected [height, width], got {list(self.image_size)}")
            _require(self.layout is not None, "dataset.image_size", "set dataset.layout, too")
        if any(not source.actions for source in self.mixture):
            _require(self.mixture[0].actions, "dataset.mixture", "the first store needs actions")
            _require(
                bool(self.future),
                "dataset.mixture",
                "a store without actions teaches frames only; set future",
            )
        _require(
            self.statistics == "own" or self.layout is None,
            "dataset.statistics",
            "stores of a shared layout are normalised by their own",
        )

    @property
    def goal_features(self) -> tuple[str, ...]:
        """Features of the goal; none if there is none."""
        return () if self.goal is None else self.goal.features

    @property
    def modes(self) -> dict[str, str]:
        """`rescale`, with masks left as they are."""
        return {**self.rescale, STATE_IS_VALID: "identity"}


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Horizons [steps]: T_o, T_p, T_a."""

    n_obs_steps: int = 2
    horizon: int = 16
    n_action_steps: int = 8


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How to train.

    Attributes:
        steps: Optimiser steps of the whole run; not used if `schedule_by` is ``cpu_time``.
        batch_size: Windows per process and micro-batch; the effective batch is this x accumulate x processes.
        lr: Peak learning rate.
        betas: AdamW's momentum coefficients.
        weight_decay: Passed to the policy's ``parameter_groups``.
        warmup_steps: Steps of linear warm-up.
        warmup_fraction: Warm-up as a share of the whole run (steps or CPU time); replaces `warmup_steps`.
        schedule_by: What the cosine runs over: ``steps``, or ``cpu_time``, the share of
            `time_budget_cpu_minutes` spent. A run by CPU time is not reproducible bit by bit.
        time_budget_cpu_minutes: Stop when the process has spent this much CPU time on training.
        grad_clip: Largest allowed gradient norm; null does not clip.
        accumulate: Micro-batches per optimiser step.
        precision: ``fp32``, ``bf16`` (autocast), or ``auto``: bf16 where the device computes in it natively.
        ema_power: The average's decay after n updates is ``1 - (1 + n) ** -ema_power``, at most `ema_max`.
        ema_max: See `ema_power`.
        compile: Compile the loss with torch.compile.
        threads: CPU threads of torch; null leaves torch's choice.
        prefetch: Batches read ahead by a thread.
        val_every: Steps between validations; 0 never validates.
        val_windows: Windows of the fixed validation subset, and of the training subset.
        checkpoint_every: Steps between checkpoints; one is always written at the end.
        keep_top_k: Checkpoints kept for their validation error, besides the last.
        log_every: Steps between lines of ``metrics.jsonl``.
        tensorboard: Also write TensorBoard event files.
        wandb: Weights & Biases project to log to; null does not.
        progress_seconds: Seconds between progress lines where there is no terminal.
        resume: ``auto`` continues a run found in the output directory, ``never`` refuses to, ``must`` insists.
    """

    steps: int = 10_000
    batch_size: int = 64
    lr: float = 1e-4
    betas: tuple[float, ...] = (0.95, 0.999)
    weight_decay: float = 1e-6
    warmup_steps: int = 500
    warmup_fraction: float | None = None
    schedule_by: Literal["steps", "cpu_time"] = "steps"
    time_budget_cpu_minutes: float | None = None
    grad_clip: float | None = 1.0
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    ema_power: float = 0.75
    ema_max: float = 0.9999
    compile: bool = False
    threads: int | None = None
    prefetch: int = 0
    val_every: int = 1000
    val_windows: int = 256
    checkpoint_every: int = 1000
    keep_top_k: int = 1
    log_every: int = 50
    tensorboard: bool = True
    wandb: str | None = None
    progress_seconds: float = 30.0
    resume: Literal["auto", "never", "must"] = "auto"

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "lr",
            "accumulate",
            "checkpoint_every",
            "log_every",
            "val_windows",
        ):
            _positive("trainer", self, name)
        for name in ("time_budget_cpu_minutes", "grad_clip", "threads"):
            _positive("trainer", self, name)
        for name in ("warmup_steps", "val_every", "keep_top_k", "prefetch", "weight_decay"):
            _require(getattr(self, name) >= 0, f"trainer.{name}", f"expected >= 0, got {getattr(self, name)}")
        _require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            "trainer.betas",
            f"expected two numbers in [0, 1), got {list(self.betas)}",
        )
        _require(
            self.warmup_fraction is None or 0 <= self.warmup_fraction < 1,
            "trainer.warmup_fraction",
            f"expected 0 <= x < 1 or null, got {self.warmup_fraction}",
        )
        _require(0 <= self.ema_max < 1, "trainer.ema_max", f"expected 0 <= x < 1, got {self.ema_max}")
        _require(
            self.schedule_by == "steps" or self.time_budget_cpu_minutes is not None,
            "trainer.schedule_by",
            "cpu_time needs time_budget_cpu_minutes",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The whole resolved configuration of ``robot-policies train``.

    Attributes:
        policy: ``{"type": ..., ...}``, validated by the policy's own config class.
        sampler: The sampler the trained policy uses by default; null leaves the policy's own.
        seed: Seeds the initial weights, the order of samples and the noise.
        init_from: Run or checkpoint directory to start from (fine-tuning), with its normaliser; empty starts from
            random weights.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``.
        task: The task these data show, a name or ``{"name": ..., option: ...}``, kept for ``robot-policies eval``; the
            trainer does not use it. None leaves it to the data (`demonstrated_task`).
    """

    dataset: DatasetConfig
    policy: Mapping[str, Any]
    window: WindowConfig = field(default_factory=WindowConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sampler: Mapping[str, Any] | None = None
    seed: int = 0
    init_from: str = ""
    output_dir: str = "outputs/train"
    device: str = "auto"
    task: Any = None

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", f"expected 0 <= seed < 2**32, got {self.seed}")
        _require(self.output_dir != "", "output_dir", "must not be empty")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RunConfig:
        """Validate a resolved configuration tree.

        Raises:
            ConfigError: A key is unknown or missing, or a value out of range.
        """
        return from_mapping(cls, values, where="train")


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise ConfigError(f"{where}: {message}")


def _positive(group: str, config: object, name: str) -> None:
    value = getattr(config, name)
    _require(value is None or value > 0, f"{group}.{name}", f"expected > 0, got {value}")
