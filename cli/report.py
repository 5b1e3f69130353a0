"""Renders the report of preprocessing as text."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from dualgnn_dgl.cli.show import text_table
from dualgnn_dgl.errors import clean, shorten


def text(report: dict[str, Any]) -> str:
    """Renders the report as text: sizes, splits, modalities, and dropped rows by reason."""
    options, rows = report["options"], report["rows"]
    parts = [
        f"{clean(report['input']['name']) or 'log'} ({report['input']['kind'] or 'in memory'}): "
        f"{rows['read']:,} rows read{_because(report['input']['evidence'])}",
        _options(options),
        text_table(
            ["split", "pairs", "users", "items", "density"],
            [
                [name, part["interactions"], part["users"], part["items"], f"{part['density']:.4%}"]
                for name, part in (report["splits"] | {"all": report}).items()
            ],
        ),
    ]
    dropped = [[f"  {reason}", -count] for reason, count in rows["dropped"].items()]
    parts.append(
        text_table(["rows", "count"], [["read", rows["read"]], *dropped, ["kept", rows["kept"]]])
    )
    if report["modalities"]:
        parts.append(_modalities(report["modalities"]))
        parts += _resemblance(report["modalities"])
    else:
        parts.append("no modality: models that need features cannot use this data set")
    if report["titles"]:
        parts.append(f"titles: {report['titles']:,} of {report['items']:,} items")
    if report["co_occurrence"]:
        lists = report["co_occurrence"]
        parts.append(
            f"co-occurrence ({lists['weight']}, top {lists['top']}): "
            f"{lists['users_with_neighbours']:,} of "
            f"{report['users']:,} users have neighbours, {lists['mean_neighbours']:.1f} each on "
            f"average"
        )
    if report["published"]:
        parts.append(_published(report["published"]))
    if report["warnings"]:
        parts.append(
            "\n".join(f"warning: {shorten(clean(warning))}" for warning in report["warnings"])
        )
    return "\n\n".join(parts)


def _because(evidence: str) -> str:
    """Returns the evidence for the format, as a second line."""
    return f"\n  format: {clean(evidence)}" if evidence else ""


def _options(options: dict[str, Any]) -> str:
    """Renders the options used, defaults included."""
    rule = wrap(options["split_rule"], 100, initial_indent="  ", subsequent_indent="  ")
    lines = [
        f"split: {options['split']}, seed {options['seed']}",
        *rule,
        f"k-core: {options['k_core']}",
    ]
    if options["min_rating"] is not None:
        lines.append(f"ratings: {options['min_rating']:g} and more")
    if options["feature_dim"] is not None:
        lines.append(
            f"features: at most {options['feature_dim']} columns; the projection is kept, features "
            f"of later videos may be raw"
        )
    if options["impute"] is not None:
        lines.append(
            f"missing features: imputed by {options['impute']}; models treat them as present, "
            f"'coverage' below does not"
        )
    return "\n".join(lines)


def _modalities(modalities: dict[str, Any]) -> str:
    """Renders the coverage of each modality, over all items and by popularity group."""
    groups = list(
        dict.fromkeys(
            group for modality in modalities.values() for group in modality["by_popularity"]
        )
    )
    imputed = any(modality["imputed"] for modality in modalities.values())
    rows = [
        [
            name,
            modality["width"],
            modality["present"],
            *([modality["imputed"]] if imputed else []),
            f"{modality['coverage']:.1%}",
            *(f"{modality['by_popularity'][group]['coverage']:.1%}" for group in groups),
        ]
        for name, modality in modalities.items()
    ]
    return text_table(
        ["modality", "width", "items", *(["imputed"] if imputed else []), "coverage", *groups], rows
    )


def _resemblance(modalities: dict[str, Any]) -> list[str]:
    """Renders the feature homophily; nothing if it was not measured.

    It bounds the gain from imputing a video's features from those of its neighbours.
    """
    rows = []
    for name, modality in modalities.items():
        if modality["homophily"] is not None:
            near, random, homophily, r2 = (
                modality["homophily"][key] for key in ("neighbours", "random", "gain", "explained")
            )
            potential = "low" if r2 < 0.01 else "moderate" if r2 < 0.3 else "high"
            rows.append([name, near, random, f"{homophily:.1%}", f"{r2:.1%}", potential])
    if not rows:
        return []
    head = (
        "feature homophily: cosine of videos watched by the same users and of random pairs; "
        "variance explained by neighbours (R²)"
    )
    headers = ["modality", "neighbours", "random pairs", "homophily", "R²", "imputation potential"]
    return [head + "\n" + text_table(headers, rows)]


def _published(published: dict[str, Any]) -> str:
    """Renders the published statistics beside those found."""
    rows = [
        [name, f["published"], f["found"], f["prepared"], f["met"]]
        for name, f in published["figures"].items()
    ]
    verdict = "met" if published["met"] else "NOT met"
    head = f"published statistics of {published['set']} ({published['source']}): {verdict}"
    return (
        head + "\n" + text_table(["statistic", "published", "in the log", "prepared", "met"], rows)
    )
