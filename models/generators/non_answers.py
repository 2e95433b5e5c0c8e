"""Texts that models give in place of an answer, told by their words.

Phrases stand at the beginning of a text, in lower case and with plain apostrophes. What no list
can hold is left to the guard against one text for all questions (`models.generators.repetition`).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ASK: Final = (
    "assist|help|comply|fulfil|provide|generate|create|process|see|view|access|edit|complete|"
    "describe|determine|answer|do|continue|engage|discuss|produce|identify|proceed|perform|make"
)
_REFUSALS: Final = (
    # English
    r"(?:i'?m|i am|we'?re|we are) (?:so |very |really |truly |deeply )?(?:sorry|afraid)",
    r"sorry\b|(?:i|we) (?:sincerely )?apologi[sz]e|(?:my )?apologies|apologi[sz]ing|forgive me",
    r"unfortunately,? (?:i|we|the|there|it|this|that|no)\b",
    r"(?:i|we) (?:can'?t|cannot|can not|could not|couldn'?t|won'?t|will not|must decline"
    r"|have to decline|refuse|decline|do not|don'?t|must refuse|would rather not|shouldn'?t)\b",
    r"(?:i'?m|i am|we are|we're) (?:not (?:able|allowed|permitted|sure|programmed|comfortable"
    r"|going)|unable|(?:just |only )?an? (?:ai|language|large|text|virtual|assistant|chatbot))",
    r"as an? (?:\w+ )?(?:ai|a\.i\.|artificial|language|large language|text|llm|assistant)\b",
    r"it(?:'s| is) (?:not possible|impossible|unclear|not clear)\b",
    r"(?:i|we) (?:need|require|would need) (?:more|the|an?|additional|further)\b.*"
    r"(?:information|context|image|caption|details|instruction)",
    r"(?:please|could you|can you|would you|kindly) (?:please )?"
    r"(?:provide|share|upload|clarify|specify|give|rephrase|tell|send|describe)\b",
    r"(?:there is|there's) (?:no|not enough|insufficient) (?:image|information|context|caption)",
    r"no (?:image|caption|description|instruction|content|picture|input)s? "
    r"(?:was|is|has been|were|are)? ?(?:provided|given|available|attached|found)",
    r"(?:not enough|insufficient) (?:information|context|data)",
    r"(?:request|query|prompt) (?:rejected|refused|denied|blocked|declined)",
    # Servers
    r"(?:\w+ )?(?:error|exception)\b ?[:(]|traceback \(most|(?:http )?(?:error )?[45]\d\d\b ?:? ?"
    r"(?:bad|internal|service|gateway|too many|unauthorized|forbidden|not found|error)"
    r"|internal server error|bad gateway|service unavailable|gateway time-?out|too many requests"
    r"|(?:rate|usage) limit (?:exceeded|reached)",
    r"(?:this|that|the|your) (?:request|content|prompt|question|query)\b.{0,60}"
    r"\b(?:violates?|goes against|is against|cannot|can't|not allowed|unclear|incomplete)\b",
    r"(?:unable|not able) to (?:" + _ASK + r")\b",
    # German, Dutch
    r"(?:es )?tut mir (?:sehr )?leid|entschuldigung|entschuldigen sie|verzeihung|leider\b",
    r"ich (?:kann|darf|bin nicht|habe keine?n?|möchte nicht)\b"
    r"|als (?:ki|sprachmodell|ai|taalmodel)",
    r"(?:ich )?bedaue?re|(?:het )?spijt m(?:e|ij)|helaas\b|ik (?:kan|mag|ben niet)\b",
    # French
    r"(?:je suis |nous sommes )?(?:vraiment )?désolée?s?\b|je (?:ne |n')|malheureusement",
    r"je (?:regrette|m'excuse)|excusez|pardon\b|en tant qu|il m'est impossible|navrée?\b",
    # Spanish, Portuguese, Italian, Romanian, Catalan
    r"lo (?:siento|lamento)|lamento|lamentablemente|desafortunadamente|disculp|perdón|perdona"
    r"|no (?:puedo|me es posible|tengo)\b|como (?:modelo|una? (?:ia|modelo|inteligencia))",
    r"desculp|sinto muito|(?:eu )?não (?:posso|consigo|é possível)|infelizmente|lamentavelmente"
    r"|como (?:um )?(?:modelo|assistente)|peço desculpa",
    r"mi (?:dispiace|spiace|scuso)|spiacente|purtroppo|(?:io )?non (?:posso|sono in grado|riesco)"
    r"|in quanto (?:modello|ia|intelligenza)|scusa",
    r"îmi pare rău|din păcate|nu pot\b|ho sento|em sap greu",
    # Nordic, Finnish, Hungarian, Baltic
    r"tyvärr|förlåt|jag (?:kan inte|är ledsen|beklagar)|beklager|desværre|dessverre|undskyld"
    r"|jeg (?:kan ikke|er ked|beklager)|valitettavasti|anteeksi|olen pahoillani|en voi\b"
    r"|pahoittelen",
    r"sajnálom|sajnos|elnézést|nem tudok|bocsánat|kahjuks|vabandust|diemžēl|atvainojiet"
    r"|atsiprašau",
    # Slavic
    r"przepraszam|niestety|przykro mi|nie (?:mogę|jestem w stanie)|jako model",
    r"omlouvám|bohužel|je mi líto|nemohu|prepáčte|žiaľ|je mi ľúto|žao mi je|nažalost|oprostite",
    r"извини|простите|к сожалению|(?:я )?не могу|мне (?:очень )?жаль|прошу прощения"
    r"|как (?:языковая|ии|искусственный)|сожалею|вибач|на жаль|перепрошую|(?:я )?не можу"
    r"|съжалявам|за съжаление",
    # Greek, Turkish
    r"λυπάμαι|λυπαμαι|συγγνώμη|συγνώμη|δυστυχώς|δεν μπορώ|üzgünüm|maalesef|ne yazık|özür",
    # Arabic, Hebrew, Persian, Urdu, Hindi, Bengali
    r"(?:أنا )?(?:آسف|اسف|متأسف)|عذر|أعتذر|للأسف|لا (?:أستطيع|يمكنني|يمكن)|معذرة",
    r"(?:אני )?מצטער|סליחה|לצערי|אני לא יכול|איני יכול|متأسف|متاسف|ببخشید|معذرت|نمی ?توانم",
    r"क्षमा|माफ|मुझे (?:खेद|माफ|क्षमा)|खेद|मैं .{0,40}नहीं|दुःखित|দুঃখিত|ক্ষমা|আমি .{0,40}পার",
    # Chinese, Japanese, Korean
    r"(?:非常|很|十分|真的|我)?(?:抱歉|对不起|對不起|遗憾|遺憾|不好意思)|(?:我)?(?:无法|無法|不能)"
    r"|作为(?:一个|一名)?(?:ai|人工|语言|大)|作為(?:一個|一名)?(?:ai|人工|語言|大)",
    r"(?:大変|誠に)?申し訳|すみません|すいません|ごめん|残念ながら|恐れ入り|恐縮",
    r"죄송|미안|유감|안타깝|도와드릴 수|제공할 수 없|저는 .{0,40}없",
    # South-east Asia
    r"(?:tôi )?xin lỗi|rất tiếc|tôi không thể|(?:mohon )?maaf|saya (?:tidak|minta maaf)|sayangnya"
    r"|ขออภัย|ขอโทษ|เสียใจ|paumanhin|pasensya|hindi ko|samahani|siwezi",
)
_REFUSAL: Final = re.compile("|".join(_REFUSALS))
_REFUSAL_INSIDE: Final = re.compile(
    r"\bi(?:'m| am)? (?:can'?t|cannot|can not|unable to|not able to|won'?t) (?:be able to )?"
    rf"(?:{_ASK})\b|\bas an ai\b|\bas a (?:large )?language model\b"
    r"|お(?:手伝い|答え|応え)(?:することは)?できません|(?:ことは|対応)できません|할 수 없습니다"
)
_THINKING: Final = re.compile(
    r"(?:ok|okay|alright|hmm+|wait)\b[,.:]* (?:so\b,? ?|now\b,? ?|first\b,? ?)?"
    r"(?:let(?:'s| me| us)\b|i\b|we\b|the (?:user|task|question|instruction|prompt))"
    r"|(?:right|well|so|now|first)\b,? (?:let(?:'s| me| us)\b|the (?:user|task|question|prompt)"
    r"|(?:i|we) (?:need|will|should|must|have) )"
    r"|hmm+\b|let me (?:see|look|try|start)\b"
    r"|let(?:'s| me| us) (?:think|analy|break|consider|parse|work through|figure|re-?read"
    r"|understand|tackle)"
    r"|we (?:need|are asked|are given|should|must|have to|want)\b"
    r"|i (?:need|should|have|want|must) to\b|i'(?:ll|m going to|m being asked|ve been asked)\b"
    r"|the (?:user|human|person|customer) (?:is|wants?|asks?|says?|has|needs?|gave|gives)\b"
    r"|the (?:question|task|prompt) (?:is|wants?|asks?|says?|has|requires)\b"
    r"|to (?:answer|solve|do) (?:this|the)\b|(?:my )?(?:thinking|thought) process\b"
    r"|step (?:1|one)\b"
    r"|(?:thought|thinking|reasoning|analysis)s?:|looking at (?:the|this) (?:instruction|prompt)"
    r"|嗯|好的?[,，]\s*(?:用户|我|让|首先|现在)|首先[,，]|用户|我(?:需要|来)|让我"
)
_PLACEHOLDER: Final = re.compile(
    r"(?:none|n/?\.?a|null|nil|nan|undefined|unknown|nothing|empty|blank|void|tbd|todo|error"
    r"|not (?:applicable|available|specified|provided|given|possible|known)|unchanged|same"
    r"|no (?:answer|changes?|edits?|description|text|caption|output|response|result|content"
    r"|difference|differences|edited description|modification|modifications)"
    r"|yes|no|true|false|thanks?|thank you|done|(?:i )?understood|i understand|noted"
    r"|you're welcome|okay|ok|keine?|nichts|aucune?|rien|ninguno|ninguna|nada|nessuno"
    r"|niente|nenhum|geen|brak|inget|ingen|нет|ничего|无|無|没有|沒有|なし|없음"
    r"|nicht zutreffend|sans objet|no aplica|non applicabile)"
    r"|\[[\w\s.'-]*\]|<[\w\s.'-]*>|\{[\w\s.'-]*\}|\(none\)|\(empty\)"
)
_WORD_FOR_THINGS: Final = (
    "objects?|items?|things?|elements?|additions?|changes?|noun phrases?|content|entities|entity"
    "|details?|features?|attributes?|props?|people|persons?"
)
_ADDS_NOTHING: Final = re.compile(
    r"(?:based on .{0,80}?, )?(?:the (?:instruction|modification|text|change|edit) "
    r"(?:(?:adds|brings in|introduces) (?:nothing|no )|only removes|does not|doesn't).{0,80}"
    r"|(?:there (?:is|are|were|will be|would be) )?(?:no|not any|nothing|none|zero)"
    r"(?: of (?:the|these|them|those))?"
    r"(?: (?:new|additional|other|extra|more|specific|visible|explicit|further|added|such|else"
    rf"|likely|significant))*(?: (?:{_WORD_FOR_THINGS}))?"
    r"(?: (?:is|are|were|was|will be|would be|have been|has been|being|to be|need to be"
    r"|needs to be|should be))*(?: (?:most )?likely)?(?: to be)?"
    r"(?: (?:added|introduced|brought in|mentioned|needed|required|new|included|present|inserted"
    r"|here|to add|necessary|specified|appears?|expected))?"
    r"(?: (?:to|in|into|by|from|for|with|at|on) (?:the|this|that) .{1,60})?"
    r"|n/?\.?a|not applicable|null|nil|empty|keine?(?: objekte)?|nichts|aucune?(?: objet)?|rien"
    r"|ninguno|ninguna|nada|nessuno|niente|nenhum|geen|нет|ничего|无|無|没有|沒有|なし|없음"
    r"|\[\]|\(\)|\{\}|\[none\]|\(none\)|-+|–|—|∅)"
)
_NOTHING_FIRST: Final = re.compile(r"(?:none|nothing|n/a)\s?(?:[.;:,(]|-|–|—)(?:\s|$|\w)")


def plain(text: str) -> str:
    """The text in lower case, composed, with plain apostrophes and single spaces."""
    text = unicodedata.normalize("NFC", text).casefold()
    return " ".join(text.replace("\u2019", "'").replace("\u02bc", "'").split())


def refuses(text: str) -> bool:
    """Whether the model says that it does not, cannot or may not answer."""
    said = plain(text)
    return bool(_REFUSAL.match(said) or _REFUSAL_INSIDE.search(said[:300]))


def thinks_aloud(text: str) -> bool:
    """Whether the model talks about its task in place of doing it."""
    return bool(_THINKING.match(plain(text)))


def is_placeholder(text: str) -> bool:
    """Whether a text only fills the place of a text: "None", "N/A", "[description]"."""
    return bool(_PLACEHOLDER.fullmatch(plain(text).rstrip(" .!")))


def adds_nothing(objects: str) -> bool:
    """Whether an answer to "which objects are added?" says that none is."""
    said = plain(objects).rstrip(" .!")
    return not said or bool(_ADDS_NOTHING.fullmatch(said) or _NOTHING_FIRST.match(said))
