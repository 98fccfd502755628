"""The DRA selector environment, expectations set from the Kubernetes 1.37 sources (dynamic-resource-allocation/cel,
apiserver/pkg/cel/library), not from what the engine happens to do."""

from __future__ import annotations

import threading

import pytest

from dra_driver.allocator.cel_engine import CelEngine, CelProgram
from dra_driver.allocator.model import Device, Version
from dra_driver.allocator.selectors import SelectorError, SelectorErrorKind
from tests.allocator.builders import A100, DRIVER, cel_device

ENGINE = CelEngine()

D = "device.attributes['gpu.nvidia.com']"
C = "device.capacity['gpu.nvidia.com']"

TRUE = [
    "device.driver == 'gpu.nvidia.com'",
    'device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].type == "gpu"',
    f"{D}.type == 'gpu'",
    f"{D}['type'] == 'gpu'",
    f"{D}.healthy",
    f"!{D}.healthy || {D}.index == 1",
    f"{D}.index >= 1 && {D}.index < 2",
    "device.attributes['resource.kubernetes.io'].pcieRoot == 'pci0000:00'",
    "device.attributes[device.driver].type == 'gpu'",
    # presence
    f"'type' in {D}",
    f"!('nope' in {D})",
    f"has({D}.type)",
    f"!has({D}.nope)",
    "!has(device.attributes['unknown'].x)",
    "!('unknown' in device.attributes)",
    "size(device.attributes['unknown']) == 0",
    "has(device.attributes)",
    f"has({D}.nope) ? {D}.nope == 1 : true",
    # errors absorbed by the other side
    f"{D}.nope == 1 || true",
    f"true || {D}.nope == 1",
    f"!({D}.nope == 1 && false)",
    f"!(false && {D}.nope == 1)",
    # equality and order over dynamic values
    f"!({D}.healthy == 1)",
    f"{D}.healthy != 1",
    f"!({D}.type == 1)",
    f"{D}.index == 1.0",
    f"{D}.index < 1.5",
    f"{D}.index == 1u",
    f"{D}.index in [1, 2]",
    f"!({D}.healthy in [1])",
    "[1, 'a'] == [1.0, 'a']",
    "{'a': 1}.a == 1",
    # quantities
    f"{C}.memory.compareTo(quantity('40Gi')) >= 0",
    f"{C}.memory == quantity('40960Mi')",
    f"{C}.memory.isGreaterThan(quantity('39Gi'))",
    f"{C}.memory.isLessThan(quantity('1Ti'))",
    f"{C}.memory.asInteger() == 42949672960",
    f"{C}.memory.isInteger() && !{C}.cores.isInteger()",
    f"{C}.cores.asApproximateFloat() > 1.4",
    f"{C}.memory.sub(quantity('30Gi')).compareTo(quantity('10Gi')) == 0",
    "quantity('1Gi').add(1).asInteger() == 1073741825",
    "quantity('-1').sign() == -1",
    "isQuantity('10Gi') && !isQuantity('10Gi!')",
    "!has(device.capacity['unknown'].memory)",
    # versions
    f"{D}.driverVersion.isGreaterThan(semver('580.0.0'))",
    f"{D}.driverVersion.compareTo(semver('580.105.8')) == 0",
    f"{D}.driverVersion == semver('580.105.8')",
    f"{D}.cudaComputeCapability.isLessThan(semver('9.0.0'))",
    f"{D}.driverVersion.major() == 580 && {D}.driverVersion.minor() == 105 && {D}.driverVersion.patch() == 8",
    "semver('v580.105.08', true).compareTo(semver('580.105.8')) == 0",
    "isSemver('1.2.3') && !isSemver('v1.2.3') && isSemver('v1.2', true)",
    "semver('1.0.0-rc.1').isLessThan(semver('1.0.0'))",
    # strings, regular expressions, lists, macros
    f"{D}.productName.contains('A100')",
    f"{D}.productName.startsWith('NVIDIA') && {D}.productName.endsWith('40GB')",
    f"{D}.productName.matches('^NVIDIA A[0-9]+')",
    f"{D}.productName.lowerAscii() == 'nvidia a100-sxm4-40gb'",
    f"{D}.productName.find('[0-9]+GB') == '40GB'",
    f"{D}.productName.split(' ')[1].split('-')[0] == 'A100'",
    f"{D}.productName.substring(7, 11) == 'A100'",
    f"{D}.productName.indexOf('A100') == 7",
    "'a,b'.split(',').join('-') == 'a-b'",
    "'abc'.replace('b', 'x') == 'axc' && ' x '.trim() == 'x'",
    "'a1b22'.findAll('[0-9]+') == ['1', '22']",
    f"{D}.links.exists(link, link == 'b') && {D}.links.all(link, link != 'c')",
    f"['H100', 'A100'].exists(name, {D}.productName.contains(name))",
    f"{D}.exists(name, name == 'index')",
    "[1, 2, 3].filter(x, x > 1).map(x, x * 2) == [4, 6]",
    "[1, 2, 2].exists_one(x, x == 1)",
    "[1, 2, 3].isSorted() && [1, 3, 2].max() == 3 && [1, 2].sum() == 3",
    "size('abc') == 3 && 'abc'.size() == 3",
    f"int('5') + {D}.index == 6 && string(5) == '5'",
    "device.allowMultipleAllocations == false",
    "device // a comment\n.driver != ''",
]

RUNTIME_ERRORS = [
    (f"{D}.nope == 1", "no such key: nope"),
    ("device.attributes['unknown'].x == 1", "no such key: x"),
    (f"{D}.nope == 1 || false", "no such key: nope"),
    (f"true && {D}.nope == 1", "no such key: nope"),
    (f"{C}.nope.compareTo(quantity('1')) >= 0", "no such key: nope"),
    (f"{C}.memory < quantity('1')", "no"),
    (f"{D}.type < 1", "no"),
    ("quantity('10Q').isLessThan(quantity('1'))", "unknown suffix"),
    ("semver('1.2').isLessThan(semver('1.2.3'))", "not a semantic version"),
    (f"{C}.cores.asInteger() == 1", "cannot be represented"),
    (f"{C}.memory.compareTo(semver('1.0.0')) == 0", "no such overload"),
    (f"{D}.type.matches('[')", "invalid regular expression"),
    ("1 / 0 == 1", "zero"),
    ("9223372036854775807 + 1 > 0", "overflow"),
    (f"{D}.index + 1.5 > 0.0", "no"),
    (f"has({D}.nope.x)", "no such key: nope"),
    (f"has({D}.type.x)", "has() on string"),
]

COMPILE_ERRORS = [
    ("device.driver ==", SelectorErrorKind.SYNTAX, "syntax error"),
    ("", SelectorErrorKind.SYNTAX, "syntax error"),
    ("gpu.driver == 'x'", SelectorErrorKind.UNDECLARED, "undeclared reference to 'gpu'"),
    ("device.name == 'gpu-0'", SelectorErrorKind.UNDECLARED, "undefined field 'name'"),
    ("device['driver'] == 'x'", SelectorErrorKind.UNDECLARED, "not a map"),
    ("quantitty('1') == 1", SelectorErrorKind.UNDECLARED, "function 'quantitty'"),
    (f"{C}.memory.isBigger(quantity('1'))", SelectorErrorKind.UNDECLARED, "function 'isBigger'"),
    ("has(device)", SelectorErrorKind.UNDECLARED, "has() takes one field selection"),
    ("[1].all(x > 0)", SelectorErrorKind.UNDECLARED, "takes a variable name"),
    (f"{D}.?nope.orValue(false)", SelectorErrorKind.UNSUPPORTED, "optional field selection"),
    (f"{D}[?'nope'].orValue(false)", SelectorErrorKind.UNSUPPORTED, "optional indexing"),
    ("device.attributes.`gpu.nvidia.com`.type == 'gpu'", SelectorErrorKind.UNSUPPORTED, "backtick"),
    ("cel.bind(x, 1, x == 1)", SelectorErrorKind.UNSUPPORTED, "cel.bind()"),
    (f"{D}.exists(k, v, k == 'type')", SelectorErrorKind.UNSUPPORTED, "two-variable form of exists()"),
    ("optional.of(1).hasValue()", SelectorErrorKind.UNSUPPORTED, "hasValue()"),
    ("sets.contains([1], [1])", SelectorErrorKind.UNSUPPORTED, "sets.contains()"),
    ("ip('10.0.0.1').isLoopback()", SelectorErrorKind.UNSUPPORTED, "isLoopback()"),
    ("[2, 1].min() == 1", SelectorErrorKind.UNSUPPORTED, "min()"),
    ("'%d'.format([1]) == '1'", SelectorErrorKind.UNSUPPORTED, "format()"),
    ("(" * 300 + "true" + ")" * 300, SelectorErrorKind.LIMIT, "nested too deeply"),
    ("true " + "|| true" * 2000, SelectorErrorKind.LIMIT, "at most 10240"),
]


@pytest.mark.parametrize("expression", TRUE)
def test_expressions_that_hold(expression: str) -> None:
    assert ENGINE.compile(expression).evaluate(A100) is True


@pytest.mark.parametrize(("expression", "message"), RUNTIME_ERRORS)
def test_errors_at_run_time_are_not_false(expression: str, message: str) -> None:
    program = ENGINE.compile(expression)
    with pytest.raises(SelectorError) as caught:
        program.evaluate(A100)
    assert caught.value.kind is SelectorErrorKind.RUNTIME
    assert message in caught.value.message


@pytest.mark.parametrize(("expression", "kind", "message"), COMPILE_ERRORS)
def test_what_a_cluster_would_refuse_or_this_engine_lacks_fails_at_compile(
    expression: str, kind: SelectorErrorKind, message: str
) -> None:
    with pytest.raises(SelectorError) as caught:
        ENGINE.compile(expression)
    assert caught.value.kind is kind, caught.value
    assert message in str(caught.value)


def test_an_error_names_its_position() -> None:
    with pytest.raises(SelectorError) as caught:
        ENGINE.compile("device.driver == 'x' && foo > 1")
    assert caught.value.position == 24
    assert str(caught.value).endswith("at character 25")


@pytest.mark.parametrize(
    ("expression", "type_name"),
    [(f"{D}.type", "string"), ("1", "int"), (f"{C}.memory", "quantity"), ("device.attributes", "map")],
)
def test_a_result_that_is_not_bool_is_an_error(expression: str, type_name: str) -> None:
    with pytest.raises(SelectorError, match=f"gives {type_name}, not bool") as caught:
        ENGINE.compile(expression).evaluate(A100)
    assert caught.value.kind is SelectorErrorKind.NOT_BOOL


def test_an_expensive_expression_is_stopped() -> None:
    nested = "true"
    for variable in "abcde":
        nested = f"[0,1,2,3,4,5,6,7,8,9].all({variable}, {nested})"
    with pytest.raises(SelectorError) as caught:
        ENGINE.compile(nested).evaluate(A100)
    assert caught.value.kind is SelectorErrorKind.LIMIT


def test_results_are_remembered_on_the_values_read_with_their_types() -> None:
    program = ENGINE.compile("device.attributes['d'].x == 1")
    assert program.evaluate(cel_device({"d": {"x": 1, "y": 1}}))
    assert program.evaluate(cel_device({"d": {"x": 1, "y": 2}}))
    assert not program.evaluate(cel_device({"d": {"x": True}}))
    assert not program.evaluate(cel_device({"d": {"x": "1"}}))
    assert not program.evaluate(cel_device({"d": {"x": Version("1.0.0")}}))
    with pytest.raises(SelectorError):
        program.evaluate(cel_device({}))


@pytest.mark.parametrize(
    ("expression", "references"),
    [
        ("device.driver == 'x'", {("driver",)}),
        (f"{D}.type == 'gpu'", {("attributes", DRIVER, "type")}),
        (f"'type' in {D}", {("attributes", DRIVER)}),
        ("device.attributes[device.driver].type == 'x'", {("attributes",), ("driver",)}),
        ("device.attributes.exists(d, d == 'x')", {("attributes",)}),
        (f"{C}.memory == quantity('1')", {("capacity", DRIVER, "memory")}),
        ("[device].exists(d, d.driver == 'x')", {()}),
        ("[1].exists(device, device == 1)", set()),
    ],
)
def test_what_an_expression_reads(expression: str, references: set[tuple[str, ...]]) -> None:
    program = ENGINE.compile(expression)
    assert isinstance(program, CelProgram)
    assert set(program.references) == references


def test_threads_share_programs() -> None:
    program = ENGINE.compile(f"{D}.index % 2 == 0 && [1, 2].exists(x, x == {D}.index % 3)")
    devices = [cel_device({DRIVER: {"index": number}}) for number in range(300)]
    expected = [number % 2 == 0 and number % 3 in (1, 2) for number in range(300)]
    answers: list[list[bool]] = []

    def work(order: list[Device]) -> None:
        answers.append([program.evaluate(device) for device in order])

    threads = [threading.Thread(target=work, args=(devices,), name=f"cel-{number}") for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 3
