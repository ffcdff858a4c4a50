# shellcheck shell=bash disable=SC2034 # other_work is for who sources this
# For code/setup.sh and code/wheels.sh: Python and pip as the machine has them, without what its owner set for other work.

other_work=(PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS PYTHONINSPECT PYTHONUSERBASE PYTHONPLATLIBDIR
  PYTHONEXECUTABLE) # as in Makefile

fail() { echo "$(basename "$0" .sh): $*" >&2; exit 1; }

shield() { # keep of pip's configuration what says where packages come from; drop where they go, and which (user, target, …)
  local kept
  kept=$(.venv/bin/python -I - <<'END'
import ast, os, shlex, subprocess, sys

KEPT = "index-url extra-index-url no-index find-links cert client-cert proxy trusted-host timeout default-timeout retries"
KEPT += " cache-dir no-cache-dir keyring-provider"
every_file = os.environ | {"PIP_USER": "0", "PIP_GLOBAL": "0", "PIP_SITE": "0"}  # "user = true" would list one alone
command = [sys.executable, "-I", "-m", "pip", "config", "list"]
listed = subprocess.run(command, env=every_file, capture_output=True, text=True)
if listed.returncode:
    sys.exit("setup: pip cannot read its configuration: " + " ".join(listed.stderr.split()))
values = dict(line.split("=", 1) for line in listed.stdout.splitlines())
for key in KEPT.split():
    found = [values[name] for section in (":env:", "install", "global") if (name := f"{section}.{key}") in values]
    if found:
        print(f"export PIP_{key.upper().replace('-', '_')}={shlex.quote(ast.literal_eval(found[0]))}")
END
  ) || exit 1
  unset "${!PIP_@}"
  eval "$kept"
  export PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1
}

# Pylians is compiled against the locked NumPy, with one compiler process per core. It asks for Cython 0.29, whose output
# Python 3.13 cannot compile; Cython 3 reads its sources where told that an unmarked C function raises nothing, as 0.29
# assumed.
with_pylians_flags() {
  mkdir -p .venv/build
  printf '[build_ext]\nparallel=%s\n' "$(nproc)" >.venv/build/build.cfg
  printf '%s\n' 'from Cython.Compiler import Options' \
    'Options.get_directive_defaults()["legacy_implicit_noexcept"] = True' >.venv/build/sitecustomize.py
  DIST_EXTRA_CONFIG=$PWD/.venv/build/build.cfg PYTHONPATH=$PWD/.venv/build "$@"
}
