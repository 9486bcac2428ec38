"""The tables of a study that leaves centres out: what a new one costs, gains and forgetting, and their tests."""

from __future__ import annotations

from collections.abc import Mapping

from spanseg.compare import transfer
from spanseg.compare.design import NEW, OLD
from spanseg.compare.study import BASE
from spanseg.compare.tables import NOT_RUN, Summary, Table, number
from spanseg.stats import PairedTest, holm, paired_test

CENTRES = [
    *("centre", "row", "people_new", "new", "gain", "gain_low", "gain_high"),
    *("people_old", "old_unrouted", "old_routed"),
    *("forgetting", "forgetting_low", "forgetting_high", "worst_old", "worst_forgetting", "retention", "harmonic"),
    "safe",
]
TESTS = ["low", "high", "wilcoxon_p", "wilcoxon_holm", "t_p", "t_holm", "detectable_80"]


def direct_table(summary: Summary) -> Table:
    """What the base model loses at each centre where it is new, against bases that learned the centre."""
    table = [["centre", "people", "known", "new", "loss", "low", "high", "5 points or more"]]
    found = {one.centre: one for one in transfer.direct_losses(summary.lines)}
    for centre in _left_out(summary):
        if centre not in found:
            table.append([centre, *[NOT_RUN] * (len(table[0]) - 1)])
            continue
        one = found[centre]
        values = (one.known, one.unknown, one.loss.mean, one.loss.low, one.loss.high)
        table.append([centre, str(one.loss.subjects), *map(number, values), "yes" if one.loss.mean >= 0.05 else "no"])
    return table


def centre_table(summary: Summary) -> Table:
    """Gain, forgetting, retention, harmonic mean, routed and unrouted: over all people, over centres, and for each."""
    table = [CENTRES]
    each = transfer.centre_scores(summary.lines)
    over = [*transfer.pooled_scores(summary.lines), *transfer.mean_scores(each, len(_left_out(summary)))]
    found = {(one.centre, one.row): one for one in (*over, *each)}
    unsafe = {one.row for one in each if not one.is_safe}
    for centre in (transfer.ALL, transfer.MEAN, *_left_out(summary)):
        for row in summary.rows:
            one = found.get((centre, row))
            cells = [NOT_RUN] * (len(CENTRES) - 2) if one is None else _transferred(one, unsafe)
            table.append([centre, row, *cells])
    return table


def against_table(summary: Summary) -> Table:
    """Every row minus the target for each left-out centre, there and on the old ones, and the mean of the centres.

    Holm's correction is over the centres of one row and part; the mean's test takes each centre as one pair.
    """
    table = [["part", "row", "centre", "people", f"minus_{summary.target}", *TESTS]]
    for part in (NEW, OLD):
        for row in summary.rows:
            if row != summary.target:
                table += [[part, row, *cells] for cells in _against(summary, row, part)]
    return table


def _against(summary: Summary, row: str, part: str) -> Table:
    """One row's tests: the mean of the centres if all were run, then a line a centre."""
    tests = transfer.centre_tests(summary.lines, row, summary.target, part)
    centres = _left_out(summary)
    missing = [1.0] * (len(centres) - len(tests))
    wilcoxon = dict(zip(tests, holm([test.wilcoxon_p for test in tests.values()] + missing), strict=False))
    t = dict(zip(tests, holm([test.t_p for test in tests.values()] + missing), strict=False))
    table = [[transfer.MEAN, *_over_centres(tests)] if not missing else [transfer.MEAN, *[NOT_RUN] * (len(TESTS) + 2)]]
    for centre in centres:
        one = tests.get(centre)
        cells = [NOT_RUN] * (len(TESTS) + 2) if one is None else _tested(one, wilcoxon[centre], t[centre])
        table.append([centre, *cells])
    return table


def _over_centres(tests: Mapping[str, PairedTest]) -> list[str]:
    """The test of the centres' mean differences, each centre a pair; nothing to correct for."""
    over = paired_test([0.0] * len(tests), [one.difference.mean for one in tests.values()])
    people, *cells = _tested(over, over.wilcoxon_p, over.t_p)
    return [f"{people} centres", *cells]


def _tested(one: PairedTest, wilcoxon_holm: float, t_holm: float) -> list[str]:
    change = one.difference
    values = (change.mean, change.low, change.high, one.wilcoxon_p, wilcoxon_holm, one.t_p, t_holm, one.detectable)
    return [str(change.subjects), *map(number, values)]


def _left_out(summary: Summary) -> list[str]:
    return [split.name for split in summary.plan.splits]


def _transferred(one: transfer.CentreScore, unsafe: set[str]) -> list[str]:
    """The figures of a row of the table of centres; over several centres a row is safe if it is at each of them."""
    is_safe = one.row not in unsafe if one.centre in (transfer.ALL, transfer.MEAN) else one.is_safe
    safe = "base" if one.row == BASE else "yes" if is_safe else "no"
    lost = one.forgetting
    new, old = (f"{mean.subjects}{' centres' * (one.centre == transfer.MEAN)}" for mean in (one.gain, lost))
    return [
        *(new, *map(number, (one.new, one.gain.mean, one.gain.low, one.gain.high))),
        *(old, *map(number, (one.old, one.routed_old, lost.mean, lost.low, lost.high))),
        *(one.worst, *map(number, (one.lost_by_centre[one.worst], one.retention, one.harmonic)), safe),
    ]
