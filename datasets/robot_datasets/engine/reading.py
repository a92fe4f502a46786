"""Reading episodes one after the other so that a bad one never stops those behind it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError, UserError, describe_unexpected
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Plan, Rejected

T = TypeVar("T")

# The source or the machine failed, not one episode: going on would set aside all that are left.
_ABORTING = (errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def read_episodes(
    importer: Importer, plan: Plan, refs: Sequence[EpisodeRef], take: Callable[[Episode], T]
) -> Iterator[T | Rejected]:
    """Hand the episode of every ref to `take` and yield what that returned, or why there is no episode.

    An importer that fails on an episode in a way it did not foresee is started again behind it.

    Args:
        importer: Reads the source.
        plan: Its plan.
        refs: What to read, in this order.
        take: Consumes an episode; `EpisodeError` if it is unusable.

    Raises:
        DatasetError: The source as a whole cannot be read any more.
        OSError: `take` could not write.
    """
    position = 0
    while position < len(refs):
        stream = iter(importer.episodes(plan, refs[position:]))
        alive = True
        while alive and position < len(refs):
            ref = refs[position]
            result, alive = _next(stream, importer, plan, ref)
            position += 1
            if isinstance(result, Rejected):
                yield result
                continue
            try:
                taken = take(result)
            except EpisodeError as error:
                yield Rejected(ref.source_id, str(error))
            else:
                yield taken


def _next(
    stream: Iterator[EpisodeResult], importer: Importer, plan: Plan, ref: EpisodeRef
) -> tuple[EpisodeResult, bool]:
    """Return the next result, and whether the importer can go on."""
    try:
        result = next(stream)
    except EpisodeError as error:
        return Rejected(ref.source_id, str(error)), False
    except UserError:
        raise
    except StopIteration as error:
        raise RuntimeError(f"importer {importer.name} yielded nothing for '{ref.source_id}'") from error
    except OSError as error:
        if error.errno in _ABORTING or not plan.source.exists():
            raise DatasetError(
                f"{plan.source} cannot be read any more ({error}); make it accessible and run the same "
                "command again, it goes on where it stopped"
            ) from error
        return Rejected(ref.source_id, f"the source cannot be read: {error}; copy it again"), False
    except Exception as error:  # noqa: BLE001  a bug of one importer must not end a conversion of days
        return Rejected(ref.source_id, describe_unexpected(error)), False
    if result.source_id != ref.source_id:
        raise RuntimeError(f"importer {importer.name} yielded '{result.source_id}' for '{ref.source_id}'")
    return result, True
