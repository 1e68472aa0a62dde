"""The files of examples/cluster against the schemas and the programs that read them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import typer.main
import yaml

from kneepoint.command_line import app
from kneepoint.job_file import JobFile, WorkersSection, read_job_file, resolve_job
from kneepoint.tasks import digits

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples" / "cluster"
RAY_FILES = ("ray-cluster.yaml", "ray-cluster-local.yaml")
OBJECT_STORE_SHARE = 0.3  # of a node's memory that Ray keeps for itself, by default


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return content


def workers_section() -> WorkersSection:
    workers = read_job_file(CLUSTER / "job.yaml").workers
    assert isinstance(workers, WorkersSection)
    return workers


def ray_version() -> str:
    """The one that all nodes must have."""
    (version,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return str(version)


# The job file


def test_the_job_file_is_a_job() -> None:
    job = read_job_file(CLUSTER / "job.yaml")
    resolved = resolve_job(job, CLUSTER, digits.task(quick=True), run_task=False)
    assert resolved.workers.count == 32
    assert resolved.workers.cpus == resolved.threads == 1
    assert resolved.storage is None


def test_the_job_file_shows_every_key_of_workers() -> None:
    content = load("job.yaml")
    assert set(content["workers"]) == set(WorkersSection.model_fields)
    assert "storage" in content
    assert set(content) <= set(JobFile.model_fields)


def test_storage_may_be_postgresql_as_the_comment_says() -> None:
    (url,) = re.findall(r"storage: null +# or (\S+):", (CLUSTER / "job.yaml").read_text())
    job = read_job_file(CLUSTER / "job.yaml", [f"storage={url}", "workers.gpus=0.25"])
    resolved = resolve_job(job, CLUSTER, digits.task(quick=True), run_task=False)
    assert resolved.storage == url
    assert resolved.workers.gpus == 0.25


# Commands that the files give


def parse(command: list[str]) -> dict[str, Any]:
    """What the ``kneepoint`` command line makes of arguments.

    Raises:
        Exception: If there is no such command or option, or something is missing: typer has no public type for it.
    """
    group: Any = typer.main.get_command(app)
    found = group.commands[command[1]]
    parameters: dict[str, Any] = found.make_context(command[1], list(command[2:])).params
    return parameters


def commands() -> list[str]:
    """All ``kneepoint COMMAND ARGUMENTS`` of the folder."""
    names = "search|resume|status|front|report|inspect|export"
    pattern = re.compile(rf"kneepoint (?:{names}) [^\s\"'`;#$)][^\n\"'`;#$)]*")
    return sorted(
        {found.strip() for path in CLUSTER.iterdir() if path.is_file() for found in pattern.findall(path.read_text())}
    )


def test_the_files_give_commands() -> None:
    assert {command.split()[1] for command in commands()} >= {"search", "resume", "status"}


@pytest.mark.parametrize("command", commands())
def test_commands_have_the_options_that_they_give(command: str) -> None:
    parse(shlex.split(command))


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["kneepoint", "search", "job.yaml", "--rray", "auto"])


# The Ray cluster launcher


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_accepts_the_cluster_file(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load(name))  # type: ignore[no-untyped-call, unused-ignore]
    validate_config(prepared)  # type: ignore[no-untyped-call, unused-ignore]
    assert prepared["max_workers"] >= 1


@pytest.mark.parametrize("name", RAY_FILES)
@pytest.mark.parametrize("change", [{"max_wokers": 1}, {"setup_commands": "pip install kneepoint"}])
def test_ray_notices_mistakes(name: str, change: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises((jsonschema.ValidationError, TypeError)):
        validate_config(prepare_config({**load(name), **change}))  # type: ignore[no-untyped-call, unused-ignore]


def test_the_head_is_on_demand_and_workers_are_spot() -> None:
    content = load("ray-cluster.yaml")
    head = content["head_node_type"]
    types = content["available_node_types"]
    assert types[head]["resources"]["CPU"] == types[head]["max_workers"] == 0
    assert "InstanceMarketOptions" not in types[head]["node_config"]
    for name, entry in types.items():
        if name != head:
            assert entry["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
            assert entry["min_workers"] == 0
    assert content["max_workers"] == sum(entry["max_workers"] for entry in types.values())
    assert content["provider"]["cache_stopped_nodes"] is False


def test_there_is_room_for_all_workers_on_aws() -> None:
    workers = workers_section()
    spot = load("ray-cluster.yaml")["available_node_types"]["cpu-spot"]
    assert spot["max_workers"] * spot["resources"]["CPU"] >= workers.count * (workers.cpus or 1)


@pytest.mark.parametrize("name", RAY_FILES)
def test_what_is_copied_to_nodes_is_there(name: str) -> None:
    content = load(name)
    for remote, local in content["file_mounts"].items():
        made_by_others = local == "dist" or local.startswith("~")  # make wheel; ray get-auth-token
        assert made_by_others or (ROOT / local).exists(), remote
    assert (ROOT / content["file_mounts"][next(path for path in content["file_mounts"] if "job" in path)]).is_dir()


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_start_has_the_options_that_the_launcher_gives(name: str) -> None:
    content = load(name)
    lines = [*content["head_start_ray_commands"], *content["worker_start_ray_commands"]]
    starts = [line.split("ray start ", 1)[1] for line in lines if "ray start " in line]
    assert len(starts) == 2
    for start in starts:
        parse_ray(["start", *shlex.split(start)])


def parse_ray(command: list[str]) -> dict[str, Any]:
    from ray.scripts.scripts import cli

    found: Any = cli.commands[command[0]]
    parameters: dict[str, Any] = found.make_context(command[0], list(command[1:])).params
    return parameters


def test_all_files_name_the_ray_of_the_constraints() -> None:
    texts = {path.name: path.read_text() for path in CLUSTER.iterdir() if path.is_file()}
    images = re.findall(r"rayproject/ray:([\w.]+)-py(\d)(\d+)", "".join(texts.values()))
    assert len(images) >= 3
    assert {version for version, _, _ in images} == {ray_version()}
    assert all((int(major), int(minor)) >= (3, 11) for _, major, minor in images)
    named = re.findall(r"rayVersion: (\S+)|ray\[default\]==([\d.]+)", "".join(texts.values()))
    assert {one or other for one, other in named} == {ray_version()}


# KubeRay


def rayjob_schema() -> dict[str, Any]:
    """KubeRay's schema, which refuses unknown fields as kubectl's validation does."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("rayjob.schema.json").read_text())
    close(schema)
    return schema


def close(schema: Any) -> None:
    if isinstance(schema, list):
        for entry in schema:
            close(entry)
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "type" in schema:
            schema.setdefault("additionalProperties", False)
        for entry in schema.values():
            close(entry)


def pods() -> dict[str, dict[str, Any]]:
    """Pod specifications by group."""
    cluster = load("kuberay-job.yaml")["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def test_kuberay_accepts_the_job() -> None:
    job = load("kuberay-job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert len(job["metadata"]["name"]) <= 47  # the operator's limit
    jsonschema.validate(job, rayjob_schema())


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ((), "entryPoint", "kneepoint"),
        ((), "backoffLimit", "2"),
        (("rayClusterSpec",), "headgroupSpec", {}),
        (("rayClusterSpec", "authOptions"), "mode", "password"),
        (("rayClusterSpec", "workerGroupSpecs", 0), "maxReplicas", "8"),
        (("rayClusterSpec", "workerGroupSpecs", 0, "template", "spec"), "tolerations", {"key": "spot"}),
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0), "volumeMount", []),
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "securityContext"), "user", 1),
    ],
)
def test_the_schema_of_kuberay_notices_mistakes(path: tuple[str | int, ...], key: str, value: object) -> None:
    job = load("kuberay-job.yaml")
    place = job["spec"]
    for step in path:
        place = place[step]
    place[key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, rayjob_schema())


def test_the_operators_own_rules_hold() -> None:
    """What KubeRay's controller checks beyond the schema, of what this job uses."""
    spec = load("kuberay-job.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["submissionMode"] == "HTTPMode"
    assert spec["backoffLimit"] >= 0
    assert spec["ttlSecondsAfterFinished"] == 0 or spec["shutdownAfterJobFinishes"]
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)  # for tokens
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert "resources" not in group
    assert all(pod["restartPolicy"] == "Never" for pod in pods().values())  # the newer autoscaler asks for it


def test_the_run_is_in_the_volume_and_the_job_where_the_entrypoint_looks_for_it() -> None:
    given = parse(shlex.split(load("kuberay-job.yaml")["spec"]["entrypoint"]))
    head = pods()["head"]
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in head["volumes"]}
    claim = load("kuberay-volume.yaml")
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert re.fullmatch(r"\d+Gi", claim["spec"]["resources"]["requests"]["storage"])
    assert str(given["out"].parent) == mounts["runs"]
    assert str(given["job"].parent) == mounts["job"]
    assert given["job"].name == "job.yaml"
    assert given["ray"] == "auto"


def test_mounts_have_volumes() -> None:
    for pod in pods().values():
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_pods_have_few_rights() -> None:
    options = load("kuberay-job.yaml")["spec"]["rayClusterSpec"]["autoscalerOptions"]
    for pod in pods().values():
        assert pod["securityContext"]["runAsNonRoot"]
        for container in (*pod["containers"], options):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pods()["cpu"]["automountServiceAccountToken"] is False
    assert load("kuberay-job.yaml")["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"


def test_there_is_room_for_all_workers_in_pods() -> None:
    workers = workers_section()
    (group,) = load("kuberay-job.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    a_pod = int(container["resources"]["limits"]["cpu"]) // (workers.cpus or 1)
    assert group["maxReplicas"] * a_pod >= workers.count
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30 * (1 - OBJECT_STORE_SHARE)
    assert memory >= a_pod * (workers.memory_gb or 0) * 1e9


# Slurm: the script runs with stand-ins for srun, scontrol, ray, kneepoint, hostname and sleep

SCRIPT = CLUSTER / "slurm.sh"
SLEEP = shutil.which("sleep")
PROGRAMS = {
    "srun": """
        echo "srun $*" >>"$FAKE/log"
        while [[ $1 == --* ]]; do
            if [[ $1 == --nodelist=* ]]; then export FAKE_NODE=${1#*=}; fi
            shift
        done
        exec "$@"
    """,
    "scontrol": """
        echo "scontrol $*" >>"$FAKE/log"
        if [[ $1 == show ]]; then tr , "\\n" <<<"$3"; fi
    """,
    "ray": """
        if [[ $1 == start ]]; then
            trap 'echo "$FAKE_NODE: stopped" >>"$FAKE/log"; exit 1' TERM
            echo "$FAKE_NODE: token of ${#RAY_AUTH_TOKEN}, mode $RAY_AUTH_MODE, $SRUN_CPUS_PER_TASK cpus" >>"$FAKE/log"
            if [[ $FAKE_NODE == "$FAKE_BROKEN" ]]; then SLEEP 1; exit 1; fi
            SLEEP 0.2
            if [[ $FAKE_NODE != "$FAKE_LATE" ]]; then
                echo "$FAKE_NODE: joined" >>"$FAKE/log"
                touch "$FAKE/joined/$FAKE_NODE"
            fi
            for ((i = 0; i < 1000; i++)); do SLEEP 0.03; done
        else
            joined=$(ls "$FAKE/joined")
            if [[ -z $joined ]]; then exit 1; fi
            echo "======== Autoscaler status: 2026-01-01 00:00:00.000000 ========"
            echo "Active:"
            for node in $joined; do echo " 1 node_$node"; done
            echo "Pending:"
            echo " (no pending nodes)"
            echo "Recent failures:"
            echo " 1 node_gone: NodeTerminated"
        fi
    """,
    "kneepoint": """
        echo "kneepoint $*" >>"$FAKE/log"
        trap 'echo "kneepoint interrupted" >>"$FAKE/log"; exit 130' INT
        if [[ $FAKE_SEARCH == long ]]; then for ((i = 0; i < 1000; i++)); do SLEEP 0.03; done; fi
        exit "$FAKE_CODE"
    """,
    "hostname": 'echo "10.0.0.7 192.168.0.7 "',
    "sleep": "exec SLEEP 0.03",
}


def _hear_interrupts() -> None:
    """Bash cannot undo that whoever started the tests, in the background of a script, ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Slurm:
    """An allocation that is none."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    nodes: tuple[str, ...] = ("node-1", "node-2", "node-3")
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        programs = self.folder / "programs"
        for folder in (programs, self.folder / "joined", self.folder / "submitted-from"):
            folder.mkdir()
        for name, content in PROGRAMS.items():
            (programs / name).write_text("#!/bin/bash\n" + content.replace("SLEEP", str(SLEEP)))
            (programs / name).chmod(0o755)
        (self.folder / "log").touch()

    @property
    def run(self) -> Path:
        return self.folder / "submitted-from" / "runs" / "first"

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def start(self) -> None:
        environment = {
            "PATH": f"{self.folder / 'programs'}:{os.environ['PATH']}",
            "FAKE": str(self.folder),
            "FAKE_SEARCH": "short",
            "FAKE_CODE": "0",
            "FAKE_BROKEN": "",
            "FAKE_LATE": "",
            "SLURM_JOB_ID": "1234",
            "SLURM_JOB_NODELIST": ",".join(self.nodes),
            "SLURM_CPUS_PER_TASK": "16",
        }
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT)],  # noqa: S607 - whichever bash the path has
            cwd=self.folder / "submitted-from",
            env={**environment, **self.environment},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=_hear_interrupts,
            text=True,
        )

    def signal(self, number: signal.Signals, *after: str) -> None:
        """Sent to the script alone, once the log has lines that start so."""
        assert self.process is not None
        deadline = time.monotonic() + 20
        while not all(any(line.startswith(start) for line in self.log) for start in after):
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.process.send_signal(number)

    def finish(self) -> tuple[int, str]:
        """The exit code, and what it said."""
        assert self.process is not None
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said

    def first(self, start: str) -> int:
        """Where in the log the first such line is."""
        return next(number for number, line in enumerate(self.log) if line.startswith(start))

    def assert_ray_is_stopped(self, *nodes: str) -> None:
        """The head last."""
        stopped = [line.removesuffix(": stopped") for line in self.log if line.endswith(": stopped")]
        assert sorted(stopped) == sorted(nodes)
        assert not stopped or stopped[-1] == "node-1"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    found = Slurm(tmp_path)
    yield found
    if found.process is not None:
        found.process.kill()
        found.process.communicate()


def test_slurm_starts_ray_everywhere_and_then_searches(slurm: Slurm) -> None:
    slurm.start()
    assert slurm.finish()[0] == 0
    steps = [line for line in slurm.log if line.startswith("srun ")]
    assert len(steps) == 3
    assert all("--nodes=1 --ntasks=1" in step and "ray start --block" in step for step in steps)
    assert "--nodelist=node-1 " in steps[0]
    assert "--head --node-ip-address=10.0.0.7 --port=6379 --num-cpus=15" in steps[0]
    assert {re.findall(r"--nodelist=(\S+)", step)[0] for step in steps[1:]} == {"node-2", "node-3"}
    assert all("--address=10.0.0.7:6379 --num-cpus=16" in step for step in steps[1:])
    assert slurm.first("node-1: joined") < slurm.first("srun --nodes=1 --ntasks=1 --nodelist=node-2")
    search = slurm.first("kneepoint ")
    assert max(slurm.first(f"{node}: joined") for node in slurm.nodes) < search
    workers = 15 + 2 * 16
    expected = f"kneepoint search job.yaml --out runs/first --ray 10.0.0.7:6379 --workers {workers}"
    assert slurm.log[search] == expected
    assert slurm.first("node-3: stopped") > search
    slurm.assert_ray_is_stopped(*slurm.nodes)
    assert not any("requeue" in line for line in slurm.log)


def test_slurm_gives_options_that_kneepoint_and_ray_have(slurm: Slurm) -> None:
    slurm.start()
    slurm.finish()
    (command,) = [line for line in slurm.log if line.startswith("kneepoint ")]
    assert parse(shlex.split(command))["ray"] == "10.0.0.7:6379"
    for line in slurm.log:
        if " ray start " in line:
            assert parse_ray(["start", *shlex.split(line.split(" ray start ")[1])])["block"]
    parse_ray(["status", "--address", "10.0.0.7:6379"])


def test_slurm_protects_ray_with_a_token_that_all_nodes_know(slurm: Slurm) -> None:
    slurm.start()
    slurm.finish()
    for node in slurm.nodes:
        assert f"{node}: token of 64, mode token, 16 cpus" in slurm.log


def test_slurm_counts_workers_of_several_processors(slurm: Slurm) -> None:
    slurm.environment["CPUS_PER_WORKER"] = "4"
    slurm.start()
    slurm.finish()
    assert slurm.log[slurm.first("kneepoint ")].endswith(f" --workers {3 + 2 * 4}")


def test_slurm_resumes_a_run_that_is_there(slurm: Slurm) -> None:
    slurm.run.mkdir(parents=True)
    (slurm.run / "job.yaml").touch()
    slurm.start()
    assert slurm.finish()[0] == 0
    command = slurm.log[slurm.first("kneepoint ")]
    assert command == "kneepoint resume runs/first --ray 10.0.0.7:6379 --workers 47"
    parse(shlex.split(command))


def test_slurm_searches_where_a_start_left_an_empty_folder(slurm: Slurm) -> None:
    slurm.run.mkdir(parents=True)
    slurm.start()
    slurm.finish()
    assert slurm.log[slurm.first("kneepoint ")].startswith("kneepoint search ")


def test_slurm_works_on_one_node(slurm: Slurm) -> None:
    slurm.nodes = ("node-1",)
    slurm.start()
    assert slurm.finish()[0] == 0
    assert slurm.log[slurm.first("kneepoint ")].endswith(" --workers 15")
    slurm.assert_ray_is_stopped("node-1")


@pytest.mark.parametrize("code", [1, 2, 137])
def test_slurm_stops_ray_when_the_search_fails(slurm: Slurm, code: int) -> None:
    slurm.environment["FAKE_CODE"] = str(code)
    slurm.start()
    assert slurm.finish()[0] == code
    slurm.assert_ray_is_stopped(*slurm.nodes)
    assert not any("requeue" in line for line in slurm.log)


def test_slurm_requeues_before_the_time_limit(slurm: Slurm) -> None:
    slurm.environment["FAKE_SEARCH"] = "long"
    slurm.start()
    slurm.signal(signal.SIGUSR1, "kneepoint ")
    code, said = slurm.finish()
    assert code == 0
    assert "interrupted (limit); what was measured is kept" in said
    assert slurm.first("kneepoint interrupted") < slurm.first("node-2: stopped")
    slurm.assert_ray_is_stopped(*slurm.nodes)
    assert slurm.log[-1] == "scontrol requeue 1234"


def test_slurm_requeues_no_more_than_so_often(slurm: Slurm) -> None:
    slurm.environment |= {"FAKE_SEARCH": "long", "SLURM_RESTART_COUNT": "3", "MAX_RESTARTS": "3"}
    slurm.start()
    slurm.signal(signal.SIGUSR1, "kneepoint ")
    code, said = slurm.finish()
    assert code == 1
    assert "restarted 3 times; another sbatch goes on" in said
    assert not any("requeue" in line for line in slurm.log)


def test_slurm_leaves_it_to_slurm_to_requeue_what_was_preempted(slurm: Slurm) -> None:
    slurm.environment["FAKE_SEARCH"] = "long"
    slurm.start()
    slurm.signal(signal.SIGTERM, "kneepoint ")
    assert slurm.finish()[0] == 143
    assert "kneepoint interrupted" in slurm.log
    slurm.assert_ray_is_stopped(*slurm.nodes)
    assert not any("requeue" in line for line in slurm.log)


def test_slurm_can_be_interrupted_before_the_search(slurm: Slurm) -> None:
    slurm.environment["FAKE_LATE"] = "node-3"
    slurm.start()
    slurm.signal(signal.SIGUSR1, "node-2: token", "node-3: token")
    assert slurm.finish()[0] == 0
    assert not any(line.startswith("kneepoint") for line in slurm.log)
    slurm.assert_ray_is_stopped(*slurm.nodes)
    assert slurm.log[-1] == "scontrol requeue 1234"


def test_slurm_gives_up_when_a_node_does_not_join(slurm: Slurm) -> None:
    slurm.environment |= {"FAKE_LATE": "node-3", "WAIT_SECONDS": "4"}
    slurm.start()
    code, said = slurm.finish()
    assert code == 1
    assert "2 of 3 nodes joined in 4 s" in said
    assert not any(line.startswith("kneepoint") for line in slurm.log)
    slurm.assert_ray_is_stopped(*slurm.nodes)


@pytest.mark.parametrize("broken", ["node-1", "node-2"])
def test_slurm_gives_up_when_ray_does_not_start(slurm: Slurm, broken: str) -> None:
    slurm.environment["FAKE_BROKEN"] = broken
    slurm.start()
    code, said = slurm.finish()
    assert code == 1
    assert "Ray did not start on every node" in said
    assert not any(line.startswith("kneepoint") for line in slurm.log)
    started = {"node-1"} if broken == "node-1" else set(slurm.nodes)
    slurm.assert_ray_is_stopped(*(started - {broken}))


def test_slurm_is_asked_for_what_the_script_relies_on() -> None:
    lines = SCRIPT.read_text().splitlines()
    header = lines[: next(number for number, line in enumerate(lines) if line and not line.startswith("#"))]
    options = [line.removeprefix("#SBATCH ") for line in header if line.startswith("#SBATCH ")]
    assert [line for line in lines if line.startswith("#SBATCH ")] == [f"#SBATCH {option}" for option in options]
    assert {"--requeue", "--no-kill", "--ntasks-per-node=1", "--open-mode=append"} <= set(options)
    (seconds,) = [int(option.rpartition("@")[2]) for option in options if option.startswith("--signal=B:USR1@")]
    assert seconds >= 180  # for the search to end, with a report, and for Ray


def test_slurm_script_is_well_formed() -> None:
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)  # noqa: S607 - whichever bash the path has


def test_shellcheck_finds_nothing() -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run([program, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


# The page


def test_the_page_names_files_that_are_there() -> None:
    text = (CLUSTER / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (CLUSTER / link).exists(), link
    for path in CLUSTER.iterdir():
        if path.name != "README.md":
            assert path.name in text, path.name
