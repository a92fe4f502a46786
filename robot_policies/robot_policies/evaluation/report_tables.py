"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from robot_policies.evaluation.results import EpisodeResult

# Data cards may hold whole configurations; the report shows what identifies the data.
CARD_KEYS = ("name", "fingerprint", "embodiment", "episodes", "train_episodes", "steps")


def episode_table(results: Sequence[EpisodeResult]) -> str:
    """One row per episode; the page sorts by any column."""
    heads = (
        ("seed", "n"), ("result", ""), ("score", "n"), ("best reward", "n"), ("success at step", "n"),
        ("steps", "n"), ("chunks", "n"), ("network calls", "n"), ("policy ms", "n"), ("env s", "n"),
    )  # fmt: skip
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in heads)
    rows = "".join(f"<tr>{_episode_cells(result)}</tr>" for result in results)
    return (
        '<div class="card table-card tall"><table class="episodes">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _episode_cells(result: EpisodeResult) -> str:
    kind, word = (
        ("good", "success") if result.success else ("bad", "failed" if result.failure else "no success")
    )
    numbers = (
        f"{result.score:.3f}",
        f"{result.max_reward:.3f}",
        "" if result.success_step is None else str(result.success_step),
        str(result.steps),
        str(result.n_chunks),
        str(result.n_network_calls),
        "" if result.policy_latency_ms is None else f"{result.policy_latency_ms:.1f}",
        f"{result.wall_time_s:.2f}",
    )
    cells = "".join(f'<td class="n" data-key="{text or -1}">{text}</td>' for text in numbers)
    return f'<td class="n">{result.seed}</td><td><span class="pill {kind}">{word}</span></td>{cells}'


def failure_list(results: Sequence[EpisodeResult]) -> str:
    """Episodes that did not finish, with their reason and traceback; empty if all did."""
    rows = []
    for result in results:
        if not result.failure:
            continue
        details = (
            f"<details><summary>traceback</summary><pre>{escape(result.failure_details)}</pre></details>"
            if result.failure_details
            else ""
        )
        rows.append(
            f"<tr><th>seed {result.seed}</th><td>after {result.steps} steps: "
            f"<code>{escape(result.failure)}</code>{details}</td></tr>"
        )
    return (
        f'<div class="card table-card"><table class="protocol">{"".join(rows)}</table></div>' if rows else ""
    )


def protocol_table(protocol: Mapping[str, Any]) -> str:
    """What was evaluated and how."""
    task, horizons, checkpoint = protocol["task"], protocol["horizons"], protocol["checkpoint"]
    data, machine, seeds = protocol["data"], protocol["machine"], protocol["seeds"]
    rules = {
        "success": "1 if the task reported success at any step, else 0",
        "max_reward": "largest reward of the episode",
        "return": "sum of the rewards of the episode",
    }
    rows = [
        ("Task", f"{task['name']} ({_pairs(task['options'])})" if task["options"] else task["name"]),
        ("Score", rules[task["score"]]),
        (
            "Episodes",
            f"{len(seeds)}, seeds {_ranges(seeds)}, at most {task['max_steps']} steps at {task['fps']:g} Hz",
        ),
        ("Observation", ", ".join(f"{name} {tuple(f['shape'])}" for name, f in task["observation"].items())),
        ("Action", f"{tuple(task['action']['shape'])} {task['action'].get('meaning', '')}".strip()),
        (
            "Horizons",
            f"{horizons['n_obs_steps']} observed, {horizons['horizon']} predicted, "
            f"{executed_steps(protocol)} executed steps",
        ),
        ("Executor", _pairs(protocol["executor"])),
        ("Sampler", _pairs(protocol["sampler"] or {"type": "the policy's own"})),
        ("Policy noise seed", str(protocol["policy_seed"])),
        ("Checkpoint", str(checkpoint.get("path") or "given in memory")),
        ("SHA-256 of weights", str(checkpoint.get("sha256") or "none")),
        ("Training data", _pairs({k: data[k] for k in CARD_KEYS if data.get(k) is not None}) or "unknown"),
        ("Software", _pairs(protocol["software"])),
        (
            "Machine",
            f"{machine['system']}, Python {machine['python']}, {machine['device']}, "
            f"{machine['torch_threads']} torch threads, {machine['n_envs']} environments in "
            f"{machine['workers'] or 'no'} worker processes{' on Ray' if machine.get('pool') == 'ray' else ''}",
        ),
        ("Source revision", str(machine.get("source_revision") or "unknown")),
    ]
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f'<div class="card table-card"><table class="protocol">{body}</table></div>'


def executed_steps(protocol: Mapping[str, Any]) -> int:
    """Steps of each chunk that are carried out, or from one chunk to the next."""
    if protocol["executor"]["type"] == "temporal_ensemble":
        return max(1, protocol["executor"].get("inference_delay", 0))
    return protocol["executor"].get("n_action_steps") or protocol["horizons"]["n_action_steps"]


def _pairs(values: Mapping[str, Any]) -> str:
    """``{"type": "ddim", "steps": 10}`` -> ``ddim, steps 10``."""
    rest = [f"{name} {value}" for name, value in values.items() if name != "type" and value is not None]
    kind = [str(values["type"])] if "type" in values else []
    return ", ".join(kind + rest)


def _ranges(seeds: Sequence[int]) -> str:
    """``[3, 4, 5, 9]`` -> ``3 to 5, 9``."""
    groups: list[list[int]] = []
    for seed in sorted(seeds):
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    parts = [str(g[0]) if len(g) == 1 else f"{g[0]} to {g[-1]}" for g in groups]
    return ", ".join(parts[:6]) + (", ..." if len(parts) > 6 else "")
