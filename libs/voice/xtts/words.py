"""What does a voice say when it is tried? A few words of each language that XTTS knows."""

from __future__ import annotations

from libs.common.errors import InvalidInput

# fmt: off
WORDS = {
    "en": "This is a test.", "de": "Guten Tag, wir versuchen es.", "fr": "Ceci est un essai.",
    "es": "Esto es una prueba.", "it": "Questa è una prova.", "pt": "Isto é um teste.", "pl": "To jest próba.",
    "tr": "Deneme yapıyoruz.", "ru": "Это проверка.", "nl": "Dit is een proef.", "cs": "To je zkouška.",
    "ar": "هذا اختبار.", "zh-cn": "这是一个测试。", "hu": "Ez egy próba.", "ko": "이것은 시험입니다.",
    "ja": "これはテストです。", "hi": "यह एक परीक्षण है।",
}
# fmt: on
"""What is said for a test, by language."""


def words_in(language: str) -> str:
    """What is said for a test. Raises InvalidInput for a language that XTTS does not have."""
    try:
        return WORDS[language]
    except KeyError:
        raise InvalidInput(f"XTTS does not speak {language!r}; it knows {', '.join(WORDS)}", field="language") from None
