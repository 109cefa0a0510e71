"""`vl serve` before it serves: what it refuses to start with."""

import socket
import subprocess
import sys

import pytest

from recipes.cli import main


def refused(capsys, *options):
    """What `vl serve` says when it does not start."""
    assert main(["serve", *map(str, options)]) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "rewards.example"])
def test_an_address_that_others_reach_needs_a_token(capsys, host):
    said = refused(capsys, "--host", host)
    assert f"host '{host}' can be reached from other machines" in said
    assert "--token-file" in said


@pytest.mark.parametrize(
    ("token", "found"),
    [("", "0 characters"), ("short", "5 characters"), ("sixteen or more, with spaces", "28 ")],
)
def test_a_poor_token_is_refused(capsys, token_file, token, found):
    token_file.write_text(token)
    said = refused(capsys, "--token-file", token_file)
    assert f"{token_file} holds {found}" in said
    assert "secrets.token_urlsafe" in said


def test_a_missing_token_file_is_named(capsys, tmp_path):
    assert "nowhere" in refused(capsys, "--token-file", tmp_path / "nowhere")


def test_a_port_in_use_is_named(capsys, taken_port):
    said = refused(capsys, "--port", taken_port)
    assert f"cannot listen on 127.0.0.1 port {taken_port}" in said
    assert "--port" in said


def test_a_token_that_others_can_read_is_a_warning(capsys, taken_port, token_file):
    options = ("serve", "--port", str(taken_port), "--token-file", str(token_file))
    main(options)
    assert capsys.readouterr().out == ""
    token_file.chmod(0o644)
    main(options)
    assert f"chmod 600 {token_file}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--workers", 0, "workers is 0; allowed: at least 1"),
        ("--port", 70000, "port is 70000; allowed: 0 to 65535"),
        ("--items-max", 0, "items_max is 0; allowed: above 0"),
        ("--body-limit-mb", -1, "allowed: above 0"),
        ("--grace-s", -1, "grace_s is -1.0; allowed: at least 0"),
        ("--time-limit-s", 0, "time_limit_s is 0.0"),
    ],
)
def test_settings_are_checked(capsys, option, value, said):
    assert said in refused(capsys, "--port", 0, option, value)


def test_without_its_packages_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from recipes.cli import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'vl-triune[serve]'" in done.stderr
