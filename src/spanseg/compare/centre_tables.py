"""The tables of a study that leaves centres out: what a new one costs, gains and forgetting, and their tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spanseg.compare import transfer
from spanseg.compare.design import NEW, OLD
from spanseg.compare.study import BASE
from spanseg.compare.tables import NOT_RUN, Summary, Table, number
from spanseg.stats import PairedTest, holm, paired_test

CENTRES = [
    *("centre", "row", "people_new", "new", "gain", "gain_low", "gain_high"),
    *("people_old", "old_unrouted", "old_routed", "forgetting", "forgetting_low", "forgetting_high"),
    *("worst_old", "worst_new", "worst_forgetting", "retention", "harmonic", "safe"),
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

    Over several centres the worst loss is that of the old centre that loses most to one new centre, of those run: it
    decides whether a row is safe, and a row is called so when all centres were run.
    """
    table, several = [CENTRES], (transfer.ALL, transfer.MEAN)
    each = transfer.centre_scores(summary.lines)
    over = [*transfer.pooled_scores(summary.lines), *transfer.mean_scores(each, len(_left_out(summary)))]
    found = {(one.centre, one.row): one for one in (*over, *each)}
    for centre in (*several, *_left_out(summary)):
        for row in summary.rows:
            judged = [one for one in each if one.row == row and centre in (*several, one.centre)]
            is_whole = centre not in several or len(judged) == len(_left_out(summary))
            one = found.get((centre, row))
            cells = _transferred(one, judged, is_whole) if one and judged else [NOT_RUN] * (len(CENTRES) - 2)
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


def _transferred(one: transfer.CentreScore, judged: Sequence[transfer.CentreScore], is_whole: bool) -> list[str]:
    """The figures of a row of the table of centres.

    Args:
        one: the scores.
        judged: those by which the row is called safe or not.
        is_whole: whether these are all that there will be.
    """
    worst, lost = max(judged, key=_worst_loss), one.forgetting
    safe = "no" if not worst.is_safe else "yes" if is_whole else NOT_RUN
    lost_most = (worst.worst, worst.centre, number(_worst_loss(worst)))
    if one.row == BASE:
        safe, lost_most = "base", ("n/a", "n/a", "n/a")
    new, old = (f"{mean.subjects}{' centres' * (one.centre == transfer.MEAN)}" for mean in (one.gain, lost))
    return [
        *(new, *map(number, (one.new, one.gain.mean, one.gain.low, one.gain.high))),
        *(old, *map(number, (one.old, one.routed_old, lost.mean, lost.low, lost.high))),
        *(*lost_most, *map(number, (one.retention, one.harmonic)), safe),
    ]
