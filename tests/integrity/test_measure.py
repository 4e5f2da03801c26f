"""A measurement holds what Python could run, and two of them name what differs."""

import base64
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from exequatur.errors import UnreadableError
from exequatur.integrity.compare import deviations, differences
from exequatur.integrity.files import Reader, Seen, read
from exequatur.integrity.manifest import Measurement
from exequatur.integrity.measure import (
    Plan,
    Sites,
    editable_sources,
    measure,
    outermost,
    own_variables,
    sources_of,
)


def recorded(data: bytes, algorithm: str = "sha256") -> str:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).decode().rstrip("=")
    return f"{algorithm}={digest},{len(data)}"


def install(site: Path, name: str, files: dict[str, bytes], version: str = "1.0", algorithm: str = "sha256") -> Path:
    """Install a distribution as pip does."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    files = {**files, f"{info.name}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()}
    lines = [f"{path},{recorded(data, algorithm)}" for path, data in files.items()]
    for path, data in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,", f"{info.name}/INSTALLER,,"]) + "\n")
    (info / "INSTALLER").write_text("pip\n")
    return info


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path = tmp_path.resolve()
    install(tmp_path / "site", "Tiny_Shop", {"shop/__init__.py": b"", "shop/data.txt": b"1"})
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "worker.py").write_text("print()\n")
    (tmp_path / "app.toml").write_text("")
    return tmp_path


def taken(place: Path, *variables: str) -> Measurement:
    plan = Plan((place / "app",), (place / "app.toml",), variables)
    return measure(plan, Reader(), Sites((), (place / "site",))).measurement


def test_two_measurements_of_the_same_are_the_same(place: Path) -> None:
    first = taken(place)
    assert taken(place) == first
    assert first.distributions["tiny-shop"].version == "1.0"
    assert list(first.sources[str(place / "app")]) == ["worker.py"]
    assert deviations(first) == []


def change(place: Path, what: str) -> None:
    site, app = place / "site", place / "app"
    match what:
        case "file":
            (site / "shop" / "data.txt").write_text("2")
        case "missing":
            (site / "shop" / "data.txt").unlink()
        case "record":  # who changes a file and its RECORD
            (site / "shop" / "data.txt").write_text("2")
            record = site / "Tiny_Shop-1.0.dist-info" / "RECORD"
            record.write_text(record.read_text().replace(recorded(b"1"), recorded(b"2")))
        case "unrecorded":
            record = site / "Tiny_Shop-1.0.dist-info" / "RECORD"
            record.write_text("\n".join(each for each in record.read_text().splitlines() if "data" not in each))
        case "version":
            (site / "Tiny_Shop-1.0.dist-info").rename(site / "Tiny_Shop-2.0.dist-info")
            metadata = site / "Tiny_Shop-2.0.dist-info" / "METADATA"
            metadata.write_text(metadata.read_text().replace("1.0", "2.0"))
        case "another":
            install(site, "other", {"other.py": b""})
        case "beside":
            (site / "evil.pth").write_text("import os\n")
        case "sourceless":
            (site / "shop" / "evil.pyc").write_bytes(b"")
        case "source":
            (app / "worker.py").write_text("print(1)\n")
        case "new source":
            (app / "json.py").write_text("")
        case "linked source":
            (place / "elsewhere").mkdir()
            (place / "elsewhere" / "evil.py").write_text("")
            (app / "linked").symlink_to(place / "elsewhere")
        case "configuration":
            (place / "app.toml").write_text("x = 1\n")
        case "no configuration":
            (place / "app.toml").unlink()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param("file", "distribution tiny-shop: shop/data.txt was changed", marks=pytest.mark.rule("measure.A1")),
        pytest.param(
            "missing", "distribution tiny-shop: shop/data.txt is missing", marks=pytest.mark.rule("measure.A1")
        ),
        pytest.param(
            "record",
            "distribution tiny-shop 1.0 has other files than in the manifest",
            marks=pytest.mark.rule("measure.A1"),
        ),
        ("unrecorded", "distribution tiny-shop 1.0 has other files than in the manifest"),
        ("version", "distribution tiny-shop is 2.0 instead of 1.0"),
        ("another", "distribution other is not in the manifest"),
        pytest.param(
            "beside", "evil.pth beside the distributions is not in the manifest", marks=pytest.mark.rule("measure.A2")
        ),
        pytest.param(
            "sourceless",
            "shop/evil.pyc beside the distributions is not in the manifest",
            marks=pytest.mark.rule("measure.A2"),
        ),
        ("source", "source file {}/app/worker.py was changed"),
        pytest.param(
            "new source", "source file {}/app/json.py is not in the manifest", marks=pytest.mark.rule("measure.A4")
        ),
        pytest.param(
            "linked source",
            "source file {}/app/linked/evil.py is not in the manifest",
            marks=pytest.mark.rule("measure.A4"),
        ),
        ("configuration", "configuration {}/app.toml was changed"),
        ("no configuration", "configuration {}/app.toml is missing"),
    ],
)
def test_each_difference_is_named(place: Path, what: str, said: str) -> None:
    before = taken(place)
    change(place, what)
    assert said.format(place) in differences(before, taken(place))


def test_a_variable_that_has_another_value_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_MODE", "usual")
    before = taken(place, "SHOP_MODE", "SHOP_NOT_SET")
    assert "usual" not in before.model_dump_json()
    monkeypatch.setenv("SHOP_MODE", "other")
    monkeypatch.setenv("SHOP_NOT_SET", "")
    assert differences(before, taken(place, "SHOP_MODE", "SHOP_NOT_SET")) == [
        "environment variable SHOP_MODE was changed",
        "environment variable SHOP_NOT_SET was changed",
    ]


@pytest.mark.rule("measure.A7")
def test_a_setting_that_the_manifest_does_not_name_is_a_difference(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = taken(place)
    monkeypatch.setenv("EXEQUATUR_MODE", "observe")
    monkeypatch.setenv("EXEQUATUR_INTEGRITY_MANIFEST", "m")
    monkeypatch.setenv("LD_PRELOAD", str(place / "other.so"))
    assert "EXEQUATUR_INTEGRITY_MANIFEST" not in own_variables()
    now = measure(Plan.of(before, None), Reader(), Sites((), (place / "site",))).measurement
    assert differences(before, now) == [
        "environment variable EXEQUATUR_MODE is not in the manifest",
        "environment variable LD_PRELOAD is not in the manifest",
    ]


def test_another_image_is_named(place: Path) -> None:
    image = "sha256:" + "0" * 64
    wanted = taken(place).model_copy(update={"image": image})
    assert differences(wanted, taken(place)) == [f"the container image is not known instead of {image}"]


def test_another_interpreter_is_named(place: Path) -> None:
    found = taken(place)
    other = found.interpreter.model_copy(
        update={"version": "3.0", "executable": "0" * 64, "flags": {**found.interpreter.flags, "optimize": 9}}
    )
    said = differences(found.model_copy(update={"interpreter": other}), found)
    assert [each.split(" is ")[0] for each in said] == [
        "the interpreter's version",
        "the interpreter's executable",
        "the interpreter's flag optimize",
    ]


def test_what_was_not_as_published_when_it_was_measured_is_told(place: Path) -> None:
    change(place, "file")
    (place / "site" / "shop" / "__init__.py").unlink()
    assert deviations(taken(place)) == [
        "tiny-shop 1.0: shop/data.txt is not as its RECORD says",
        "tiny-shop 1.0: shop/__init__.py is missing",
    ]


def test_other_digests_in_a_record_count_as_well(place: Path) -> None:
    install(place / "site", "strong", {"strong.py": b"x"}, algorithm="sha512")
    install(place / "site", "weak", {"weak.py": b"x"}, algorithm="md5")
    assert [each for each in deviations(taken(place)) if ".py" in each] == [
        "weak 1.0: weak.py is not as its RECORD says"
    ]


@pytest.mark.rule("measure.A3")
def test_an_editable_distribution_is_measured_by_its_source(place: Path) -> None:
    (place / "src").mkdir()
    (place / "mapped").mkdir()
    site = place / "site"
    (site / "shop.pth").write_text(f"import os\n{place / 'src'}\n/does/not/exist\n")
    (site / "__editable___shop_1_0_finder.py").write_text(f"MAPPING: dict[str, str] = {{'m': '{place / 'mapped'}'}}\n")
    (site / "__editable___odd_1_0_finder.py").write_text("MAPPING: dict[str, str] = {open('x')}\n")
    assert editable_sources(Sites((), (site,))) == (place / "mapped", place / "src")


def test_loaded_modules_lead_to_their_sources(place: Path) -> None:
    class Module:
        def __init__(self, file: Path | None = None, path: list[str] | None = None) -> None:
            self.__file__ = None if file is None else str(file)
            self.__path__ = path

    modules = {
        "worker": Module(place / "app" / "worker.py"),
        "shop": Module(place / "site" / "shop" / "__init__.py", [str(place / "site" / "shop")]),
        "space": Module(None, [str(place / "app")]),
        "space.deep": Module(place / "elsewhere.py"),
        "made": Module(),
    }
    assert sources_of(modules, Sites((), (place / "site",))) == (place / "app",)
    assert outermost([place / "app" / "x", place / "app", place / "ap"]) == (place / "ap", place / "app")


@pytest.mark.rule("measure.A5")
def test_what_cannot_be_read_makes_no_measurement(place: Path) -> None:
    os.mkfifo(place / "app" / "pipe.py")
    assert list(taken(place).sources[str(place / "app")]) == ["worker.py"]  # Python would not import it
    (place / "app" / "worker.py").unlink()
    (place / "app" / "worker.py").symlink_to(place / "app" / "worker.py")
    with pytest.raises(UnreadableError):
        taken(place)


@pytest.mark.rule("files.F1")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_regular_files_are_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(UnreadableError, match="not a regular file"):
        read(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")
    with pytest.raises(UnreadableError):
        read(Path("a\0b"))


@pytest.mark.rule("files.F2")
def test_a_file_that_is_written_while_it_is_read_has_no_digest(tmp_path: Path) -> None:
    path, stop = tmp_path / "busy", threading.Event()
    path.write_bytes(bytes(1_000_000))

    def write() -> None:
        with path.open("r+b") as stream:
            while not stop.is_set():
                stream.seek(0)
                stream.write(os.urandom(64))
                stream.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = None
        for _ in range(200):
            try:
                read(path)
            except UnreadableError as error:
                found = str(error)
                break
        assert found is not None
        assert found.endswith("is being written")
    finally:
        stop.set()
        writer.join()
    assert isinstance(read(path), Seen)


def test_a_reader_that_is_told_to_stop_does_not_go_on(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    reader = Reader(0.0001, stop)
    (tmp_path / "large").write_bytes(os.urandom(30_000_000))
    with pytest.raises(UnreadableError, match="stopped"):
        reader.digest(tmp_path / "large")


@pytest.mark.rule("measure.A5")
def test_a_file_whose_name_is_no_text_makes_no_measurement(place: Path) -> None:
    Path(os.fsdecode(os.fsencode(place) + b"/app/\xff.py")).touch()
    with pytest.raises(UnreadableError, match="cannot be written down: sources"):
        taken(place)


@pytest.mark.rule("measure.A6")
@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="the system does not tell what runs")
def test_an_interpreter_that_only_goes_by_the_name_of_another_is_another(tmp_path: Path) -> None:
    real, other = Path(sys.executable).resolve(), tmp_path / "python"
    other.write_bytes(real.read_bytes() + b"something more")
    other.chmod(0o755)
    ask = (
        "from exequatur.integrity import measure as m; r = m.Reader();"
        "print(m.measure(m.Plan(), r, m.Sites((), ())).measurement.interpreter.executable)"
    )

    def measured(runs: Path) -> str:
        command = [sys.executable, "-c", ask]
        return subprocess.run(command, executable=runs, capture_output=True, text=True, check=True).stdout.strip()

    assert measured(Path(sys.executable)) == hashlib.sha256(real.read_bytes()).hexdigest()
    assert measured(other) not in (measured(real), hashlib.sha256(other.read_bytes()).hexdigest())


def test_this_interpreter_can_be_measured() -> None:
    standard = Sites.here().standard
    found = measure(Plan(), Reader(), Sites(standard, ())).measurement.interpreter
    assert found.version.startswith(".".join(map(str, sys.version_info[:2])))
    assert {"asyncio", "json", "."} <= set(found.standard)
