from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kneepoint.tasks import digits
from kneepoint.tasks.errors import TaskError
from kneepoint.tasks.seeding import seeded
from kneepoint.tasks.task import Task


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def quick(cache: Path) -> Task:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNEEPOINT_CACHE", str(cache))
        return digits.task(quick=True)


class TestData:
    def test_the_parts_are_disjoint_and_stratified(self) -> None:
        parts = digits.load_parts()
        assert [len(part.labels) for part in parts] == [1078, 359, 360]
        images = {image.numpy().tobytes() for part in parts for image in part.images}
        assert len(images) == 1797
        for part in parts:
            assert part.images.shape[1:] == (1, 12, 12)
            shares = part.labels.bincount() / len(part.labels)
            assert float((shares - 0.1).abs().max()) < 0.01

    def test_clean_digits_stand_in_the_center(self) -> None:
        images = digits.load_parts()[0].images
        assert float(images.max()) == 1
        assert float(images[:, :, :2].max()) == float(images[:, :, :, -2:].max()) == 0

    def test_validation_and_test_are_fixed(self, quick: Task, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KNEEPOINT_CACHE", str(cache))
        torch.rand(3)
        again = digits.task(quick=True)
        assert again.fingerprint() == quick.fingerprint()

    def test_the_full_task_validates_on_at_least_3000_samples(self) -> None:
        assert digits.EXPANSION * digits.VALIDATION_SIZE == 3590


class TestPerturb:
    def test_the_generator_alone_decides(self) -> None:
        images = digits.load_parts()[0].images[:20]
        first, second = (digits.perturb(images, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(first, second)
        assert first.shape == images.shape
        assert not torch.equal(first, digits.perturb(images, torch.Generator().manual_seed(6)))

    def test_without_a_generator_the_global_one_decides(self) -> None:
        images = digits.load_parts()[0].images[:20]
        draws: list[Tensor] = []
        for _ in range(2):
            with seeded(3):
                draws.append(digits.perturb(images))
        assert torch.equal(draws[0], draws[1])

    def test_ink_moves_by_at_most_the_shift_and_the_turn(self) -> None:
        dot = torch.zeros(500, 1, 12, 12)
        dot[:, :, 5:7, 5:7] = 1
        moved = digits.perturb(dot, torch.Generator().manual_seed(0))
        far = torch.ones(12, 12, dtype=torch.bool)
        far[2:10, 2:10] = False
        assert float(moved[:, :, far].abs().mean()) < digits.NOISE
        assert float((moved.sum(dim=(1, 2, 3)) / 4).mean()) == pytest.approx((1 + digits.MIN_CONTRAST) / 2, abs=0.05)

    def test_images_need_four_dimensions(self) -> None:
        with pytest.raises(TaskError, match=r"images must have shape \(N, 1, H, W\), got \(12, 12\)"):
            digits.perturb(torch.zeros(12, 12))


class TestAugmentedLoader:
    def test_each_pass_gives_other_batches_of_all_digits(self) -> None:
        part = digits.load_parts()[0]
        loader = digits.AugmentedLoader(part)
        first, second = list(loader), list(loader)
        assert len(first) == len(loader) == 17
        assert [len(labels) for _, labels in first] == [64] * 16 + [54]
        assert not torch.equal(first[0][0], second[0][0])
        assert torch.equal(torch.cat([labels for _, labels in first]).bincount(), part.labels.bincount())

    def test_seeded_governs_it(self) -> None:
        loader = digits.AugmentedLoader(digits.load_parts()[0])
        batches: list[tuple[Tensor, Tensor]] = []
        for _ in range(2):
            with seeded(9):
                batches.append(next(iter(loader)))
        assert torch.equal(batches[0][0], batches[1][0])


class TestTask:
    def test_it_is_a_sound_and_picklable_task(self, quick: Task) -> None:
        quick.check()
        assert quick.name == "digits-quick"
        copy = pickle.loads(pickle.dumps(quick))  # noqa: S301
        assert copy.fingerprint() == quick.fingerprint()

    def test_even_the_quick_teacher_has_learned(self, quick: Task) -> None:
        assert quick.teacher_score().value > 0.8 > 0.11 > quick.reference_score()
        assert digits.clean_test_accuracy(quick.model) > 0.9

    def test_the_teacher_is_trained_once(self, quick: Task, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KNEEPOINT_CACHE", str(cache))
        steps: list[int] = []
        digits.task(quick=True, progress=lambda done, total, loss: steps.append(done))
        assert steps == []
        assert [path.name for path in cache.iterdir()] == [digits.QUICK_TEACHER.file_name]

    def test_a_corrupt_cache_file_is_trained_again(
        self, quick: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KNEEPOINT_CACHE", str(tmp_path))
        file = tmp_path / digits.QUICK_TEACHER.file_name
        file.write_bytes(b"not safetensors")
        steps: list[tuple[int, int]] = []
        task = digits.task(quick=True, progress=lambda done, total, loss: steps.append((done, total)))
        assert steps[-1] == (digits.QUICK_TEACHER.steps, digits.QUICK_TEACHER.steps)
        assert task.fingerprint() == quick.fingerprint()
        assert file.stat().st_size > 100_000

    def test_the_quick_teacher_has_a_file_of_its_own(self) -> None:
        assert digits.QUICK_TEACHER.file_name != digits.TEACHER.file_name
        assert digits.TeacherRecipe(seed=1).file_name != digits.TEACHER.file_name


class TestStudents:
    def test_six_students_have_5_to_50_percent_of_the_teachers_parameters(self, quick: Task) -> None:
        students = [digits.build_student(d, w) for d in digits.STUDENT_DEPTHS for w in digits.STUDENT_WIDTHS]
        shares = [parameters(student) / parameters(quick.model) for student in students]
        assert len(shares) == 6
        assert all(0.05 <= share <= 0.5 for share in shares)

    def test_the_whole_width_and_depth_is_the_teachers_network(self, quick: Task) -> None:
        twin = digits.build_student(digits.TEACHER.depth, 1.0)
        assert {k: v.shape for k, v in twin.state_dict().items()} == {
            k: v.shape for k, v in quick.model.state_dict().items()
        }

    def test_a_width_above_one_counts_channels(self) -> None:
        assert parameters(digits.build_student(1, 8)) == parameters(digits.build_student(1, 0.5))

    def test_the_caller_seeds_a_student(self) -> None:
        weights = []
        for _ in range(2):
            with seeded(2):
                weights.append(digits.build_student(1, 0.5).head.weight)
        assert torch.equal(weights[0], weights[1])

    def test_a_student_of_no_channels_is_refused(self) -> None:
        with pytest.raises(TaskError, match="at least 1, got width 0 and depth 1"):
            digits.build_student(1, 0.01)
