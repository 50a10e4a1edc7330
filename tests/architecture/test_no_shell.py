"""Is a program ever started through a shell? A name of a file or of a voice would then be part of a command."""

from __future__ import annotations

import ast
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
THROUGH_A_SHELL = {
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "pty.spawn"),
}
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "cmd", "powershell"}


def shells_in(source: str) -> list[str]:
    """Calls that start a shell: by what is called, by `shell=`, or as the program of a list of arguments."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            asks = any(
                word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
                for word in node.keywords
            )
            called = ast.unparse(node.func)
            if asks or any(called == name or called == name.rpartition(".")[2] for name in THROUGH_A_SHELL):
                found.append(ast.unparse(node))
        if isinstance(node, ast.List | ast.Tuple) and len(node.elts) > 1:
            first, second = (getattr(element, "value", None) for element in node.elts[:2])
            if isinstance(first, str) and first.rpartition("/")[2] in SHELLS and second in ("-c", "-lc", "/c"):
                found.append(ast.unparse(node))
    return found


def test_no_service_and_no_script_starts_a_shell_of_this_machine() -> None:
    sources = [path for folder in ("libs", "services", "scripts") for path in (PROJECT / folder).rglob("*.py")]

    started = {str(path.relative_to(PROJECT)): shells_in(path.read_text(encoding="utf-8")) for path in sources}

    assert len(sources) > 200
    assert {path: calls for path, calls in started.items() if calls} == {}


def test_a_shell_would_be_found() -> None:
    planted = [
        "subprocess.run(f'sox {name} out.wav', shell=True)",
        "os.system('rm ' + name)",
        "await create_subprocess_shell(command)",
        "Popen(['/bin/sh', '-c', 'echo ' + name])",
    ]

    assert [len(shells_in(f"async def f(name, command):\n    {line}")) for line in planted] == [1, 1, 1, 1]
    assert shells_in("subprocess.run(['sox', name, 'out.wav'], shell=False)") == []
