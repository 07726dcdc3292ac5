"""Guard "negation": both texts deny the same thing, or neither denies anything. "Cannot" is "unable to"; "not uncommon" is
"common".
"""

from __future__ import annotations

from nbllm.core.guards.denials import Denial, Polarity, Weak, of
from nbllm.core.guards.reading import BEGINNING, Reading
from nbllm.core.guards.verdicts import Verdict, apart, failed, passed
from nbllm.core.guards.wording import NOTHING, related

GUARD = "negation"
FREE = frozenset(["free", "gratis", "kostenlos", "kostenfrei", "umsonst", "gratuito"])


def compare(here: Reading, there: Reading) -> Verdict:
    """Return whether both texts deny alike."""
    a, b = of(here), of(there)
    if not (a.hard or b.hard or a.weak or b.weak or a.affixed or b.affixed):
        return passed(GUARD)
    loose = here.lexicon.loose_negators | there.lexicon.loose_negators
    mine, theirs = _counted(a, b, here, there), _counted(b, a, there, here)
    strange = [*_strange(a, b, here, there), *_bare(a, b, here, there)]
    others = [*_strange(b, a, there, here), *_bare(b, a, there, here)]
    here_counts, there_counts = _counts(mine, strange, b, others, loose), _counts(theirs, others, a, strange, loose)
    otherwise = here_counts & there_counts or _said_otherwise(mine, theirs, here, there)
    if not (otherwise or _said_otherwise(theirs, mine, there, here)):
        return apart(GUARD, _said(a), _said(b))
    if len(mine) == len(theirs):
        for one, two in zip(mine, theirs, strict=True):
            if one.heads and two.heads and _moved(one, two, here, there):
                return failed(GUARD, f'denies "{min(one.heads - two.heads)}" here, "{min(two.heads - one.heads)}" there')
    return passed(GUARD)


def _said_otherwise(mine: list[Denial], theirs: list[Denial], here: Reading, there: Reading) -> bool:
    """Say whether the other text says one denial in another way ("I can't remember the title", "the title escapes me"): it has
    nothing of what is denied, and a word of its own that means that something is not so.
    """
    if len(mine) != len(theirs) + 1:
        return False
    unlike = there.bases & there.lexicon.implied - here.bases
    if not unlike:
        return False
    return any(denial.first and not _has_of(denial.first, here, there) for denial in mine)


def _has_of(base: str, here: Reading, there: Reading) -> bool:
    """Say whether a text has a word, a form of it or a synonym."""
    lexicon = here.lexicon
    if base in there.bases:
        return True
    if lexicon.synonyms.get(base, NOTHING) & there.synonyms or lexicon.thesaurus.get(base, NOTHING) & there.senses:
        return True
    return any(related(base, other, lexicon.forms) for other in there.by_beginning.get(base[:BEGINNING], ()))


def _moved(mine: Denial, theirs: Denial, here: Reading, there: Reading) -> bool:
    """Say whether a denial went from one thing to another: "with A, without B" and "with B, without A"."""
    if not (mine.sure and theirs.sure):
        return False
    if mine.heads & theirs.list_heads and theirs.heads & mine.list_heads and not mine.heads & theirs.heads:
        return False  # "besides cake and compote", "apart from compote and cake"
    only_mine, only_theirs = mine.heads - theirs.heads, theirs.heads - mine.heads
    if mine.heads & theirs.heads:  # "doesn't pass in CI" and "doesn't pass locally"
        return bool(only_mine & there.bases and only_theirs & here.bases)
    if any(_alike(one, two, here) for one in only_mine - there.bases for two in only_theirs - here.bases):
        return False  # "didn't know", "without my knowledge"
    if (mine.near and mine.heads & there.bases) or (theirs.near and theirs.heads & here.bases):
        return True
    return bool(theirs.heads & here.bases and mine.heads & there.bases)


def _alike(one: str, two: str, here: Reading) -> bool:
    """Say whether two words are forms of one or synonyms."""
    lexicon = here.lexicon
    tables = (lexicon.synonyms, lexicon.thesaurus)
    same = any(table.get(one, NOTHING) & table.get(two, NOTHING) for table in tables)
    return same or (one[:BEGINNING] == two[:BEGINNING] and related(one, two, lexicon.forms))


def _counted(one: Polarity, other: Polarity, here: Reading, there: Reading) -> list[Denial]:
    """Return the denials that count: not "not uncommon", unless the other text has "uncommon", and not "not safe", if it has
    "unsafe".
    """
    counted = [denial for denial in one.hard if not (denial.doubled and denial.doubled not in there.bases)]
    counted = [denial for denial in counted if not any(weak.heads & denial.heads for weak in other.affixed)]
    return [denial for denial in counted if not denial.heads & here.pair.said_otherwise]


def _counts(counted: list[Denial], strange: list[Weak], other: Polarity, others: list[Weak], loose: frozenset[str]) -> set[int]:
    """Return how often a text may deny. A word that may deny ("avoid") counts where the other text has not the same; one that
    means many things ("stop") only where it meets a denial of the same or another such word.
    """
    count = len(counted)
    firm = [weak for weak in strange if weak.firm or weak.base not in loose]
    met = any(weak.firm or weak.base not in loose for weak in others)
    maybe = [
        weak
        for weak in strange
        if not weak.firm and weak.base in loose and (met or any(weak.heads & denial.heads for denial in other.hard))
    ]
    return set(range(count + min(1, len(firm)), count + len(firm) + len(maybe) + 1))


def _bare(one: Polarity, other: Polarity, here: Reading, there: Reading) -> list[Weak]:
    """Return the words with a part that denies ("unarmed") of a text, where the other denies nothing and has no such word."""
    if one.hard or one.weak or other.hard or other.weak or other.affixed:
        return []
    turned = here.pair.said_otherwise
    return [
        Weak(word.base, word.heads, firm=True)
        for word in one.affixed
        if word.base.startswith("un")
        and word.base not in there.bases
        and word.base not in turned
        and not _known(here, word.base, there)
    ]


def _known(here: Reading, base: str, there: Reading) -> bool:
    return not here.lexicon.synonyms.get(base, frozenset()).isdisjoint(there.synonyms)


def _strange(one: Polarity, other: Polarity, here: Reading, there: Reading) -> list[Weak]:
    """Return the words that may deny and that the other text has not, nor their opposite denied ("forbidden", "not allowed")."""
    bases = {weak.base for weak in other.weak}
    turned = here.pair.said_otherwise
    return [
        weak
        for weak in one.weak
        if weak.base not in bases
        and weak.base not in turned
        and not _has_of(weak.base, here, there)
        and not (weak.base == "free" and there.bases & FREE)
    ]


def _said(polarity: Polarity) -> str:
    words = [*(denial.word for denial in polarity.hard), *(weak.base for weak in (*polarity.weak, *polarity.affixed))]
    return ", ".join(f'"{word}"' for word in words[:4]) or "no denial"
