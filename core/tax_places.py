"""Countries and their parts as tax law cuts them, and the form of VAT numbers. Pure: whether a number is in use only
its country's register knows.
"""

from __future__ import annotations

from stdnum.eu import vat as eu_vat
from stdnum.exceptions import ValidationError
from stdnum.util import get_cc_module

# Member states of the European Union (ISO 3166). Their special territories are data (`invoicing/data/tax`).
_MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU_MEMBER_STATES = frozenset(_MEMBERS.split())
# VAT Directive, Art. 7: supplies to Monaco are treated as supplies to France.
TREATED_AS = {"MC": "FR"}
# Parts of France with a country code of their own: outside the VAT area of the Union, under French law.
FRENCH_OVERSEAS = frozenset({"GP", "MQ", "RE", "GF", "YT"})
# States and the federal district (ISO 3166-2:US). Territories have codes of their own and sales taxes of other kinds.
_STATES = (
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA"
    " RI SC SD TN TX UT VT VA WA WV WI WY DC"
)
US_STATES = frozenset(_STATES.split())
_VAT_LENGTH_MAX = 20
# The letters before a VAT number where they are not the country's code.
_VAT_LETTERS = {"GR": "EL", "MC": "FR"}


def vat_letters(country: str) -> str:
    """Return the letters with which a country's VAT numbers begin in the Union (`EL` for Greece)."""
    return _VAT_LETTERS.get(country, country)


def tax_country(country: str) -> str:
    """Return the country whose law counts (France's for Monaco)."""
    return TREATED_AS.get(country, country)


def read_vat_number(text: str, country: str) -> str | tuple[str, str]:
    """Return a VAT number in its compact form with the country's letters, or a fault's code and reason.

    `country` is where its holder is; a number of another country is refused. Countries outside the Union have the form
    their own rules give it, as far as they are known.
    """
    compact = "".join(char for char in text.upper() if char.isalnum())
    if not compact or len(compact) > _VAT_LENGTH_MAX or not compact.isascii():
        return ("malformed_vat_number", f"expected letters and digits such as DE136695976, got {text[:40]!r}")
    if country in EU_MEMBER_STATES or country in TREATED_AS:
        letters = vat_letters(country)
        if not compact.startswith(letters):
            other = compact[:2]
            # Numbers may hold letters of their own (Austria's begin with U), so only a whole one tells its country.
            if other != country and eu_vat.is_valid(compact):
                return ("vat_number_of_another_country", f"{compact} is of {other}, the country is {country}")
            compact = letters + (compact.removeprefix(country) if letters != country else compact)
        try:
            return str(eu_vat.validate(compact))
        except ValidationError:
            reason = f"{compact} is no VAT number of {country}: its length, form or check digits are wrong"
            return ("malformed_vat_number", reason)
    if compact[:2] in EU_MEMBER_STATES | {"EL", "XI"} and compact[:2] != country and eu_vat.is_valid(compact):
        return ("vat_number_of_another_country", f"{compact} is of {compact[:2]}, the country is {country}")
    module = get_cc_module(country.lower(), "vat")
    if module is not None:
        try:
            return str(module.validate(compact))
        except ValidationError:
            return ("malformed_vat_number", f"{compact} is no tax number of {country}")
    return compact
