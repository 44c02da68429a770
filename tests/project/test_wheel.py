"""The built distribution, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import proxy
from tests.process.conftest import serving
from tests.process.test_command import HELLO, post

ROOT = Path(proxy.__file__).parents[1]


def test_a_wheel_serves_from_an_environment_of_its_own(tmp_path: Path) -> None:
    """`piccolo_conf` and the migrations travel with it. Only the dependencies are borrowed from this environment."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT], check=True, timeout=120)
    (wheel,) = tmp_path.glob("llmgateway-*.whl")
    environment = tmp_path / "elsewhere"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60)
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + os.linesep)
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=120)
    script = environment / "bin" / "llmgateway"
    code = (
        "import proxy, piccolo_conf, piccolo_migrations as m; print(proxy.__file__, piccolo_conf.__file__, m.__file__)"
    )
    found = subprocess.run(
        [environment / "bin" / "python", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert all(path.startswith(str(environment)) for path in found), found
    script.write_text(f"#!{environment}/bin/python\nfrom proxy.cli import main\nmain()\n")
    script.chmod(0o755)
    with serving(tmp_path, str(script), "serve") as gateway:
        assert post(gateway.url, HELLO)["object"] == "chat.completion"
        assert gateway.stop() == 0
