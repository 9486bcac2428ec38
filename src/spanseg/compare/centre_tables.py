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
    """Gain, forgetting, retention, harmonic mean, routed and unrouted: over all people, over centres, and for each.

    Over several centres the worst loss is that of the one old centre that loses most to one new centre: it decides
    whether a row is safe.
    """
    table = [CENTRES]
    each = transfer.centre_scores(summary.lines)
    over = [*transfer.pooled_scores(summary.lines), *transfer.mean_scores(each, len(_left_out(summary)))]
    found = {(one.centre, one.row): one for one in (*over, *each)}
    worst = {row: max((one for one in each if one.row == row), key=_worst_loss, default=None) for row in summary.rows}
    for centre in (transfer.ALL, transfer.MEAN, *_left_out(summary)):
        for row in summary.rows:
            one = found.get((centre, row))
            cells = [NOT_RUN] * (len(CENTRES) - 2) if one is None else _transferred(one, worst[row] or one)
            table.append([centre, row, *cells])
    return table


def against_table(summary: Summary) -> Table:
    """Every row minus the target for each left-out centre, there and on the old ones, and the mean of the centres.

    Holm's correction is over the centres of one row and part; the test of the means takes each centre as one pair and
    is corrected over the rows.
    """
    table = [["part", "row", "centre", "people", f"minus_{summary.target}", *TESTS]]
    for part in (NEW, OLD):
        tests = {
            row: transfer.centre_tests(summary.lines, row, summary.target, part)
            for row in summary.rows
            if row != summary.target
        }
        means = _corrected(
            {row: _over_centres(of_row) for row, of_row in tests.items() if _is_whole(summary, of_row)}, len(tests)
        )
        for row, of_row in tests.items():
            each = _corrected(of_row, len(_left_out(summary)))
            people, *cells = means.get(row, [NOT_RUN] * (len(TESTS) + 2))
            table.append([part, row, transfer.MEAN, people if people == NOT_RUN else f"{people} centres", *cells])
            for centre in _left_out(summary):
                table.append([part, row, centre, *each.get(centre, [NOT_RUN] * (len(TESTS) + 2))])
    return table


def _is_whole(summary: Summary, tests: Mapping[str, PairedTest]) -> bool:
    return len(tests) == len(_left_out(summary))


def _over_centres(tests: Mapping[str, PairedTest]) -> PairedTest:
    """The test of the centres' mean differences, each centre a pair."""
    return paired_test([0.0] * len(tests), [one.difference.mean for one in tests.values()])


def _corrected(tests: Mapping[str, PairedTest], family: int) -> dict[str, list[str]]:
    """The figures of some tests, by name, with Holm's correction for so many; those not run count as without effect."""
    missing = [1.0] * (family - len(tests))
    wilcoxon = holm([one.wilcoxon_p for one in tests.values()] + missing)
    t = holm([one.t_p for one in tests.values()] + missing)
    return {name: _tested(one, wilcoxon[k], t[k]) for k, (name, one) in enumerate(tests.items())}


def _tested(one: PairedTest, wilcoxon_holm: float, t_holm: float) -> list[str]:
    change = one.difference
    values = (change.mean, change.low, change.high, one.wilcoxon_p, wilcoxon_holm, one.t_p, t_holm, one.detectable)
    return [str(change.subjects), *map(number, values)]


def _left_out(summary: Summary) -> list[str]:
    return [split.name for split in summary.plan.splits]


def _worst_loss(one: transfer.CentreScore) -> float:
    return one.lost_by_centre[one.worst]


def _transferred(one: transfer.CentreScore, worst: transfer.CentreScore) -> list[str]:
    """The figures of a row of the table of centres; ``worst`` is the row's score at the new centre that costs most."""
    is_over_several = one.centre in (transfer.ALL, transfer.MEAN)
    judged = worst if is_over_several else one
    lost_at = f"{judged.worst} ({judged.centre} is new)" if is_over_several else judged.worst
    safe = "base" if one.row == BASE else "yes" if judged.is_safe else "no"
    lost = one.forgetting
    new, old = (f"{mean.subjects}{' centres' * (one.centre == transfer.MEAN)}" for mean in (one.gain, lost))
    return [
        *(new, *map(number, (one.new, one.gain.mean, one.gain.low, one.gain.high))),
        *(old, *map(number, (one.old, one.routed_old, lost.mean, lost.low, lost.high))),
        *(lost_at, *map(number, (_worst_loss(judged), one.retention, one.harmonic)), safe),
    ]
