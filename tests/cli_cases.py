"""Command lines whose effect is recorded from Ollama's own command (record_cli.py) and compared with that of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fake_ollama import SHOW, Reply, stream

GGUF = b"GGUF\x03\0\0\0" + bytes(100)


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One command line; `files` lie in its working directory."""

    args: Sequence[str]
    replies: Mapping[str, Reply] = dataclasses.field(default_factory=dict)
    stdin: bytes = b""
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.note}: {' '.join(self.args)}" if self.note else " ".join(self.args)


def cases() -> list[Case]:
    """All cases; names are unique."""
    return [*_usage(), *_lists(), *_shows(), *_failures(), *_runs(), *_transfers(), *_accounts(), *_modelfiles()]


def _usage() -> Iterator[Case]:
    lines = """create --help|show -h|run --help|stop --help|pull --help|push --help|signin --help|signout --help|list --help
ls --help|ps --help|cp --help|rm --help|login --help|help list|help ls|list --help=false|list extra words|list --|list -- foo
list -|bogus|lst|lis|s|shw|RUN|version|completion bash|--bogus|--bogus list x|list --bogus|list -x|list -h --bogus|show ---v m
show --=3 m|run|cp a|cp a b c|rm|show|show x y|create|stop|serve extra|signin x|create -f|create -fx -q|-f x create m
run --think=banana x|run --verbose=maybe x|show -v=maybe m|run --format|run --dimensions abc x
run --dimensions 99999999999999999999999 x|run --keepalive 5 x hi|run --keepalive abc x|run --keepalive 1x x
show --license --system x|show --verbose=false m"""
    for line in lines.replace("\n", "|").split("|"):
        yield Case(line.split(" "))
    yield Case(["create", "a b"])
    for version in ({"version": "0.1"}, {}):
        yield Case(["-v"], {"GET /api/version": Reply(version)}, note=str(version))
    yield Case(["--version"], {"GET /api/version": Reply({}, status=500)}, note="500")


def _lists() -> Iterator[Case]:
    sizes = (0, 999, 1000, 1500, 9999, 10_000, 999_999, 10**6, 1_234_567_890, 12_345_678_901, 10**12, 25 * 10**11)
    stored = [_stored(f"m{i}:x", size) for i, size in enumerate(sizes)]
    stored.append(_stored("a-long-name-that-goes-on-and-on:and-a-tag-with-more-than-thirty-characters", 1))
    stored.append(_stored("日本:x", 1) | {"remote_model": "r"})
    listed = {"GET /api/tags": Reply({"models": stored})}
    yield Case(["list"], listed)
    yield Case(["ls", "M1"], listed)
    yield Case(["list"], {"GET /api/tags": Reply({"models": None})}, note="null")
    running = [
        _running("a", 100, 0, "2318-01-01T00:00:00Z"),
        _running("b", 100, 100, "2001-01-01T00:00:00Z"),
        _running("c", 100, 33, "0001-01-01T00:00:00Z"),
        _running("d", 200, 300, "2318-01-01T00:00:00+05:30"),
        _running("e", 0, 1, "2318-01-01T00:00:00.123456789Z"),
        _running("f", 1000, 995, "2318-01-01T00:00:00Z"),
    ]
    loaded = {"GET /api/ps": Reply({"models": running})}
    yield Case(["ps"], loaded)
    yield Case(["ps", "a"], loaded)
    yield Case(["ps", "A"], loaded)
    yield Case(["cp", "a", "b"])
    yield Case(["stop", "a"])
    yield Case(["rm", "a", "b"])


def _stored(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "digest": f"{size:064x}"[::-1], "size": size, "modified_at": "0001-01-01T00:00:00Z"}


def _running(name: str, size: int, vram: int, expires: str) -> dict[str, Any]:
    model = {"name": name, "digest": f"{size:064x}"[::-1], "size": size, "size_vram": vram}
    return model | {"context_length": size * 7, "expires_at": expires}


INFO: Mapping[str, Any] = {
    "general.architecture": "llama",
    "general.parameter_count": 8030261248,
    "llama.context_length": 131072,
    "llama.embedding_length": 4096.5,
    "a.bool": True,
    "a.null": None,
    "a.object": {"x": 1},
    "a.empty": [],
    "a.list": [1.5, 2, 3, "abc", True, None],
    "a.strings": ["long string here in list", 2],
    "a.nested": [[1, 2], [3]],
    "b.big": 1e21,
    "b.small": 0.00001,
    "b.six": 123456,
    "b.seven": 1234567,
    "b.zero": -0.0,
    "b.tiny": 5e-324,
    "b.huge": 1.7976931348623157e308,
    "c.wide": "日本語テキスト" * 10,
    "c.long": "a description of more than thirty characters which has to be wrapped in its cell",
}
MODEL: Mapping[str, Any] = {
    "license": "L1\n\n  L2  \nL3",
    "modelfile": "FROM x",
    "parameters": 'a                              1\n\nstop                           "x y"',
    "template": "T",
    "system": "one\ntwo",
    "details": {"family": "fam", "parameter_size": "", "quantization_level": "Q4_0"},
    "model_info": INFO,
    "capabilities": ["completion", "x"],
    "tensors": [{"name": "t.w", "type": "F32", "shape": [1, 2]}],
    "projector_info": {
        "general.architecture": "clip",
        "general.parameter_count": 1e6,
        "clip.vision.embedding_length": 5,
        "clip.audio.embedding_length": 6,
        "clip.vision.projection_dim": 7,
    },
}


def _shows() -> Iterator[Case]:
    changes: Sequence[dict[str, Any]] = (
        {"model_info": None},
        {"model_info": {}, "projector_info": {}},
        {"details": {"parameter_size": "8B"}, "projector_info": None, "requires": "0.1"},
        {"remote_host": "https://h", "remote_model": "rm"},
        {"capabilities": ["image"]},
        {"license": "", "system": "", "parameters": "", "capabilities": []},
        {"license": "word " * 60},
        {"license": "x" * 300, "system": "a\tb   c\n" * 5},
    )
    for part in ("license", "modelfile", "parameters", "system", "template", "verbose"):
        yield Case(["show", f"--{part}", "m"], {"POST /api/show": Reply(MODEL)})
    yield Case(["show", "m"], {"POST /api/show": Reply(MODEL)})
    for number, change in enumerate(changes):
        yield Case(["show", "m"], {"POST /api/show": Reply({**MODEL, **change})}, note=f"change {number}")


def _failures() -> Iterator[Case]:
    plain = "text/plain"
    replies: Sequence[tuple[str, Reply]] = (
        ("500 json", Reply({"error": "boom"}, 500)),
        ("500 text", Reply(b"oops\nx", 500, plain)),
        ("500 empty", Reply(b"", 500, plain)),
        ("500 without error", Reply({"x": 1}, 500)),
        ("401", Reply({"error": "unauthorized", "signin_url": "http://u"}, 401)),
        ("html", Reply(b"<html>", 200, "text/html")),
        ("cut", Reply(b'{"models":')),
    )
    for note, reply in replies:
        yield Case(["list"], {"GET /api/tags": reply}, note=note)
    for args in (["list"], ["run", "m", "x"]):
        yield Case(args, {"HEAD /": Reply(b"", 500)}, note="heartbeat")
    missing = Reply({"error": "model 'm:latest' not found"}, 404)
    for args in (["show", "m"], ["stop", "m"]):
        yield Case(args, {"POST /api/show": missing}, note="missing")
    yield Case(["rm", "m"], {"POST /api/show": missing, "DELETE /api/delete": missing}, note="missing")
    yield Case(["cp", "a", "b"], {"POST /api/copy": Reply({"error": 'model "a" not found'}, 404)}, note="missing")
    yield Case(["rm", "a", "b"], {"DELETE /api/delete": Reply({"error": "disk"}, 500)}, note="500")
    yield Case(["rm", "a", "b"], {"POST /api/show": Reply({"error": "x"}, 500)}, note="not stopped")
    answers: Sequence[tuple[str, Reply]] = (
        ("500", Reply({"error": "broke"}, 500)),
        ("404", Reply({"error": "model 'm' not found"}, 404)),
        ("500 text", Reply(b"plain words", 500, plain)),
        ("401", Reply({"error": "unauthorized", "signin_url": "http://u"}, 401)),
    )
    for note, reply in answers:
        for args in (["run", "m", "x"], ["stop", "m"], ["rm", "m"]):
            yield Case(args, {"POST /api/generate": reply}, note=note)


def _runs() -> Iterator[Case]:
    thinker = {"POST /api/show": Reply({**SHOW, "capabilities": ["completion", "thinking"]})}
    end = {"response": "", "done": True}
    times = {"total_duration": 1234567890123, "load_duration": 61000000000, "prompt_eval_count": 10}
    times |= {"prompt_eval_duration": 3000, "eval_count": 7, "eval_duration": 1500000000}
    streams: Sequence[tuple[str, Reply]] = (
        ("thinks", stream({"thinking": "hm"}, {"thinking": " ok\n"}, {"response": "yes"}, {**end, **times})),
        ("thinks again", stream({"thinking": "hm"}, {"response": "yes"}, {"thinking": "more"}, {"response": "z"}, end)),
        ("only thinks", stream({"thinking": "hm"}, end)),
        ("fails", stream({"response": "ab"}, {"error": "broke"})),
        ("garbage", Reply(b'{"response":"a"}\nnot json\n')),
        ("no last line break", Reply(b'{"response":"a"}\n{"done":true,"eval_count":3}')),
        ("nothing", Reply(b"")),
        ("calls tools", stream({"tool_calls": [_call("f", {"b": 1, "a": "<é>"}), _call("g", {})]}, end)),
    )
    for note, reply in streams:
        replies = {**thinker, "POST /api/generate": reply}
        yield Case(["run", "m", "x", "--verbose", "--nowordwrap"], replies, note=note)
        yield Case(["run", "m", "x", "--hidethinking", "--nowordwrap"], replies, note=note)
    yield Case(["run", "m"])
    yield Case(["run", "m", ""])
    yield Case(["run", "m"], stdin=b"from a pipe\n", note="pipe")
    yield Case(["run", "m", "and", "words"], stdin=b"from a pipe \xff\n", note="pipe")
    yield Case(["run", "m", "hi"], thinker, note="thinker")
    for flags in ("--think", "--think=false", "--think=low --keepalive -5m", "--keepalive 90s", "--format json", "--keepalive 0"):
        yield Case(["run", "m", *flags.split(" "), "hi"])
    yield Case(["run", "m", "--format", '{"b":1,"a":[1.0,2e5]}', "hi"])
    yield Case(["run", "m", "--format", "yaml", "hi"])
    yield Case(["run", "m", "hi"], {"POST /api/show": Reply({"capabilities": ["image"], "details": {}})}, note="image model")
    yield from _embeddings()
    yield from _pictures()


def _call(name: str, arguments: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


def _embeddings() -> Iterator[Case]:
    vector = [0.1, -0.0123456789, 1e-7, 1e-5, 0, 1, 1.5e22, -3e-9, 0.30000001, 123456792.0]
    model = {"POST /api/show": Reply({"capabilities": ["embedding"], "details": {}})}
    yield Case(["run", "m", "x"], {**model, "POST /api/embed": Reply({"embeddings": [vector]})}, note="embedding")
    flags = ["--truncate=false", "--dimensions", "0x5", "--keepalive", "5m"]
    yield Case(["run", "m", "x", *flags], {**model, "POST /api/embed": Reply({"embeddings": [[1]]})}, note="embedding")
    yield Case(["run", "m"], model, note="embedding")
    yield Case(["run", "m", "x"], {**model, "POST /api/embed": Reply({"embeddings": []})}, note="no embedding")


def _pictures() -> Iterator[Case]:
    sees = {"POST /api/show": Reply({**SHOW, "capabilities": ["completion", "vision"]})}
    files = {
        "ok.png": b"\x89PNG\r\n\x1a\nxxxx",
        "bad.png": b"hello",
        "long.png": b"hello " * 100,
        "a b.wav": b"RIFF\1\0\0\0WAVEfmt ",
    }
    prompts = ("see ./none.png ok", "see ./bad.png ok", "./long.png", "'./ok.png' and ./ok.png?", r"hear ./a\ b.wav now")
    for prompt in prompts:
        yield Case(["run", "m", prompt], sees, files=files)


def _transfers() -> Iterator[Case]:
    digest = "sha256:abcdefabcdefabcdef"
    done = {"status": "x", "digest": digest, "total": 1000, "completed": 1000}
    begun = done | {"completed": 0}
    steps = stream({"status": "pulling manifest"}, begun, done, {"status": "verifying sha256 digest"}, {"status": "success"})
    yield Case(["pull", "m"], {"POST /api/pull": steps})
    yield Case(["pull", "x/y", "--insecure"])
    yield Case(["pull", "m"], {"POST /api/pull": stream({"status": "pulling manifest"}, {"error": "no such host"})}, note="fails")
    yield Case(["pull", "m"], {"POST /api/pull": Reply({"error": "invalid model name"}, 400)}, note="400")
    missing = {"POST /api/show": Reply({"error": "model 'm:latest' not found"}, 404)}
    yield Case(["run", "m", "x"], missing, note="pulls")
    user = {"POST /api/me": Reply({"name": "bob"}), "POST /api/push": steps}
    for name in ("m", "bob/m:v1", "h.io/bob/m"):
        yield Case(["push", name], user)
    denied = stream({"status": "retrieving manifest"}, {"error": "unauthorized: access denied"})
    yield Case(["push", "m"], {**user, "POST /api/push": denied}, note="denied")
    yield Case(["push", "m"], {"POST /api/me": Reply({"error": "account unavailable"}, 503)}, note="offline")


def _accounts() -> Iterator[Case]:
    out = Reply({"error": "unauthorized", "signin_url": "http://u"}, 401)
    yield Case(["push", "m"], {"POST /api/me": out}, note="signed out")
    for command in ("signin", "signout"):
        yield Case([command], {"POST /api/me": out, "POST /api/signout": out}, note="signed out")
        yield Case([command], {"POST /api/me": Reply({"name": "bob"}), "POST /api/signout": Reply(b"null")}, note="signed in")


MODELFILES: Sequence[bytes] = (
    b"FROM x",
    b"from x\nSYSTEM hi\n",
    b"# c\n\n  FROM x\n#",
    b'FROM x\nSYSTEM """a\nb"""\n',
    b'FROM x\nSYSTEM "a\nb"\n',
    b'FROM x\nSYSTEM "a',
    b'FROM x\nSYSTEM """a""',
    b'FROM x\nSYSTEM "a" b',
    b'FROM x\nSYSTEM a "b"',
    b'FROM x\nSYSTEM ""',
    b'FROM x\nSYSTEM """"""',
    b'FROM x\nSYSTEM """a""" \n',
    b'FROM x\nSYSTEM """a""" b\nc"""\n',
    b"FROM x\nSYSTEM \ta\tb\n",
    b"FROM x\nSYSTEM 'single' # no comment\n",
    b"FROM\tx",
    b"FROM x y # z\n",
    b'FROM "x"\n',
    b"FROM x\nFROM y\n",
    b"FROM x\r\nSYSTEM hi\r\nBAD x\r\n",
    b"FROM\n",
    b"FROM x\nSYSTEM",
    b"FROM x\nSYSTEM ",
    b"SYSTEM x\n",
    b"",
    b"#only\n",
    b"FROM x\nBAD y\n",
    b"FROM x\n\n\n1FOO y",
    b"FR\xc3\x96M x",
    b"FROM x\n\xc2\xa0SYSTEM y",
    b"FROM x\nSYSTEM a\xe2\x80\x8bb\xc2\xa0c\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb d\x07e\n",
    b'FROM x\nPARAMETER temperature 0.7\nPARAMETER stop a\nPARAMETER stop "b c"\nPARAMETER top_k 5\nPARAMETER use_mmap true',
    b"FROM x\nPARAMETER temperature abc",
    b"FROM x\nPARAMETER temperature 1e400",
    b"FROM x\nPARAMETER temperature 1e39",
    b"FROM x\nPARAMETER temperature 1_0",
    b"FROM x\nPARAMETER temperature .5",
    b"FROM x\nPARAMETER temperature 0x1p-1",
    b"FROM x\nPARAMETER top_k 1.5",
    b"FROM x\nPARAMETER num_ctx 0x10",
    b"FROM x\nPARAMETER num_ctx 99999999999999999999",
    b"FROM x\nPARAMETER seed +5\nPARAMETER main_gpu 1",
    b"FROM x\nPARAMETER seed -1",
    b"FROM x\nPARAMETER use_mmap maybe",
    b"FROM x\nPARAMETER nope 1",
    b"FROM x\nPARAMETER TOP_K 3",
    b"FROM x\nPARAMETER mirostat 1\nPARAMETER top_k 3",
    b"FROM x\nPARAMETER  top_k 3",
    b"FROM x\nPARAMETER top-k 3",
    b"FROM x\nPARAMETER top_k",
    b"FROM x\nPARAMETER stop ",
    b'FROM x\nPARAMETER stop """a\nb"""',
    b'FROM x\nMESSAGE user hi\nMESSAGE assistant """ho\nho"""\n',
    b"FROM x\nMESSAGE  user hi",
    b"FROM x\nMESSAGE tool hi",
    b"FROM x\nMESSAGE User hi",
    b"FROM x\nMESSAGE user: hi",
    b"FROM x\nMESSAGE user\n",
    b"FROM x\nMESSAGE user ",
    b"FROM x\nMESSAGE",
    b"\xef\xbb\xbfFROM x\nSYSTEM \xc3\xa9\n",
    b"\xff\xfe" + "FROM x\nSYSTEM é€\n".encode("utf-16-le"),
    b"\xfe\xff" + "FROM x\nSYSTEM é\n".encode("utf-16-be"),
    b"FROM x\nSYSTEM \xff\xfe\n",
    b'FROM x\nLICENSE a\nLICENSE b\nTEMPLATE """{{ .Prompt }}\n"""\nRENDERER r\nPARSER p\nREQUIRES 0.14.0\n',
    b"FROM x\nREQUIRES foo",
    b"FROM x\nREQUIRES v1.2",
    b"FROM x\nADAPTER ./demo.gguf",
    b"FROM x\nDRAFT ./demo.gguf",
    b"FROM ./demo.gguf",
    b"FROM ./directory",
    b"FROM ./tensors",
    b"FROM ./pointer",
    b"FROM ./empty",
    b"FROM ./a.gguf\nFROM ./sub/b.gguf",
    b"FROM ~no-such-user/x",
)

FILES: Mapping[str, bytes] = {
    "demo.gguf": GGUF,
    "a.gguf": GGUF + b"a",
    "sub/b.gguf": GGUF + b"b",
    "directory/x.gguf": GGUF + b"x",
    "directory/.hidden.gguf": GGUF + b"h",
    "directory/config.json": b"{}",
    "tensors/model-1.safetensors": b"abc",
    "tensors/sub/model.safetensors": b"q",
    "tensors/config.json": b'{"a":1}',
    "tensors/sub/c.json": b"[]",
    "tensors/tokenizer.model": b"\0\1",
    "tensors/chat_template.jinja": b"{{x}}",
    "pointer/x.gguf": b"version https://git-lfs",
    "pointer/y.bin": GGUF,
    "pointer/tokenizer.json": b"\0",
    "empty/readme": b"",
}


def _modelfiles() -> Iterator[Case]:
    for number, text in enumerate(MODELFILES):
        yield Case(["create", "m", "-f", "M"], files={**FILES, "M": text}, note=f"modelfile {number}")
    yield Case(["create", "m"], files={"x.gguf": GGUF})
    yield Case(["create", "m"], note="nothing there")
    yield Case(["create", "m", "-f", "none", "-q", "q4_K_M"], files={"x.gguf": GGUF})
    yield Case(["create", "m", "--draft-quantize", "q4_0"], files={"Modelfile": b"FROM x"})
    failing = stream({"status": "parsing GGUF"}, {"error": "bad file"})
    yield Case(["create", "m"], {"POST /api/create": failing}, files={"Modelfile": b"FROM x"}, note="fails")
    refused = {"POST /api/create": Reply({"error": "invalid model name"}, 400)}
    yield Case(["create", "m"], refused, files={"Modelfile": b"FROM x"}, note="400")
