#!/usr/bin/env bash
# Creates the virtual environment with the locked dependencies. Needs Python 3.11+ only; says what is missing.
set -euo pipefail

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
stop() { printf 'setup stopped: %s\n' "$*" >&2; exit 1; }

command -v "$PYTHON" >/dev/null || stop "no '$PYTHON' found; install Python 3.11 or newer, or name it: make PYTHON=python3.12 …"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || stop "$("$PYTHON" --version) is too old; Python 3.11 or newer is needed (make PYTHON=python3.12 …)"
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null \
  || stop "this Python has no venv module; on Debian or Ubuntu: apt-get install python3-venv"

say "creating $VENV with $("$PYTHON" --version)"
"$PYTHON" -m venv "$VENV"
say "installing the locked dependencies (about 700 MB the first time: engines are among them)"
# uv installs in parallel; where it cannot (an unusual proxy, say) pip does the same, only slower.
if "$VENV/bin/pip" install --quiet --disable-pip-version-check "uv==$UV_VERSION" \
  && UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 "$VENV/bin/uv" pip install --python "$VENV/bin/python" --require-hashes -r requirements.lock; then
  :
else
  say "trying again with pip"
  "$VENV/bin/pip" install --disable-pip-version-check --require-hashes -r requirements.lock \
    || stop "the dependencies could not be installed; is a Python package index reachable? (pip's settings apply)"
fi
"$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .

say "looking for system libraries"
"$VENV/bin/python" - <<'PY' || exit 1
import sys
try:
    import weasyprint  # noqa: F401
except OSError as error:
    sys.exit(
        f"setup stopped: WeasyPrint, which makes the PDFs, finds no Pango: {error}\n"
        "  Debian, Ubuntu: apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0\n"
        "  Fedora: dnf install pango   Alpine: apk add pango   macOS: brew install pango"
    )
PY
say "ready"
