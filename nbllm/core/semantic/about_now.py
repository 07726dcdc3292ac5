"""Whether a question is about now: its answer of yesterday is no answer, however similar the question was."""

from __future__ import annotations

import re

_WORDS = (
    # English
    r"today(?:'?s)?|tonight(?:'?s)?|tomorrow(?:'?s)?|yesterday(?:'?s)?|now|nowadays|currently|current|latest|recent(?:ly)?|"
    r"up[- ]to[- ]date|breaking|as of|so far|just (?:released|announced|happened)|"
    r"this (?:morning|afternoon|evening|week(?:end)?|month|quarter|season|year)|(?:last|next|past|coming) (?:night|week(?:end)?|"
    r"month|quarter|season|year|few|\d+)|at (?:the moment|present)|right away|time is it|what(?:'s| is) the (?:date|time|weather)|"
    r"what day|weather|forecast|stock price|share price|exchange rate|news|headlines|(?:final|latest) score|"
    r"(?:still|already) (?:open|alive|valid|available)|"
    # German
    r"heute|heutige[nrsm]?|gestern|jetzt|gerade|derzeit(?:ige[nrsm]?)?|momentan|aktuell(?:e[nrsm]?)?|neueste[nrsm]?|"
    r"diese[nrsm]? (?:woche|monat|jahr|quartal|wochenende)|(?:letzte|nächste|kommende)[nrsm]? (?:woche|monat|jahr|quartal)|"
    r"wie spät|wetter|nachrichten|börsenkurs|wechselkurs|morgen (?:früh|abend)|"
    # Spanish
    r"hoy|ayer|ahora|actual(?:es|mente)?|últim[oa]s? (?:noticias|semanas?|mes(?:es)?|años?)|est[ea] (?:semana|mes|año)|"
    r"(?:semana|mes|año) (?:pasad[oa]|próxim[oa]|que viene)|qué hora|el tiempo en|noticias|tipo de cambio"
)
_NOW = re.compile(rf"(?<![\w-])(?:{_WORDS})(?![\w-])", re.IGNORECASE)


def about_now(text: str) -> str | None:
    """Return the words that make a question one about now, None for a question whose answer keeps.

    By a list of words in English, German and Spanish. It errs on the side of asking the model: a word too many costs a hit, one too
    few an old answer.
    """
    found = _NOW.search(text)
    return None if found is None else found[0]
