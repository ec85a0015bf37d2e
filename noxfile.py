"""Run the tests on several versions of Python and Django: `make matrix`, or `nox -s SESSION`."""

import nox

nox.options.default_venv_backend = "venv"


@nox.session
@nox.parametrize(("python", "django"), [("3.11", "5.2"), ("3.13", "5.2"), ("3.13", "6.1")])
def tests(session: nox.Session, django: str) -> None:
    session.install("--quiet", "--requirement", "requirements-dev.txt")
    if django != "5.2":  # the version in requirements.txt
        session.install("--quiet", f"django=={django}.*")
    session.run("python", "-X", "dev", "-m", "pytest", "--create-db", *session.posargs)
