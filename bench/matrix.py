"""Which workloads are timed. Knows no library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from operations import OPERATIONS
from workloads import Workload

Shape = tuple[int, ...]

# The outputs of ResNet-50's stages, (C, H, W).
STAGES: tuple[Shape, ...] = ((64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
BATCH = (32, 64, 56, 56)  # where one shape has to do for all
IMAGES = ("NCHW", "NHWC")
HALF = ("bfloat16", "float16")
ROWS: tuple[Shape, ...] = ((64, 768), (8192, 768), (4096, 4096), (1024, 8192), (32768, 256))
SHORT = tuple((4_000_000 // d, d) for d in (3, 7, 16, 24, 32, 64))
TABLES: tuple[Shape, ...] = ((8192, 768), (65536, 64), (80000, 50))

FUSED = ("batch_norm_inference_residual_relu", "batch_norm_training_residual_relu")
BATCH_NORM = ("batch_norm_training", "batch_norm_inference", "batch_norm_training_backward")
PER_IMAGE = ("group_norm", "instance_norm", "group_norm_backward", "instance_norm_backward")
ROW_NORM = ("layer_norm", "rms_norm")
ADDED = ("add_layer_norm", "add_rms_norm")
ROW_BACKWARD = ("layer_norm_backward", "rms_norm_backward")
SCALERS = ("standardize", "min_max_scale")


def _cross(
    operations: Iterable[str],
    layouts: Iterable[str],
    shapes: Iterable[Shape],
    dtypes: Iterable[str] = ("float32",),
    both: bool = False,
) -> Iterator[Workload]:
    """Every operation in every layout, shape and dtype."""
    layouts, shapes, dtypes = tuple(layouts), tuple(shapes), tuple(dtypes)
    for operation in operations:
        for layout in layouts:
            for shape in shapes:
                for dtype in dtypes:
                    yield Workload.named(operation, layout, shape, dtype, both=both)


def smoke() -> Iterator[Workload]:
    """Every operation, layout and dtype once, on next to nothing: checks the benchmark, its figures mean nothing."""
    for operation in OPERATIONS.values():
        layouts = ("rows",) if operation.per == "sample" else IMAGES
        yield from _cross((operation.name,), layouts, ((2, 64, 14, 14) if layouts == IMAGES else (96, 768),))
    yield from _cross((*BATCH_NORM[:1], *SCALERS), ("table",), ((96, 50),))
    yield from _cross(("layer_norm", "layer_norm_backward"), ("rows",), ((96, 50),), ("float64", *HALF))


def quick() -> Iterator[Workload]:
    """Real shapes that fit into three minutes: where each operation is used most, and where it is hardest."""
    last, single = ((32, 2048, 7, 7),), ((1, 256, 56, 56),)
    yield from _cross(("batch_norm_training", "batch_norm_training_backward"), IMAGES, (BATCH,))
    yield from _cross(("batch_norm_training",), IMAGES, last)
    yield from _cross(("batch_norm_training",), ("NCHW",), single)
    yield from _cross(("batch_norm_training",), ("table",), ((8192, 768),))
    yield from _cross(("batch_norm_inference",), IMAGES, (BATCH,))
    yield from _cross(FUSED, ("NCHW",), (BATCH,))
    yield from _cross(("layer_norm",), ("rows",), ((64, 768), (8192, 768), (1024, 8192), (125000, 32)))
    yield from _cross(("layer_norm",), ("rows",), ((8192, 768),), ("float64", *HALF))
    yield from _cross(("rms_norm", *ROW_BACKWARD, *ADDED), ("rows",), ((8192, 768),))
    yield from _cross(("group_norm", "instance_norm"), ("NCHW",), (BATCH,))
    yield from _cross(("group_norm", "group_norm_backward"), ("NHWC",), (BATCH,))
    yield from _cross(SCALERS, ("table",), ((80000, 50),))


def _images() -> Iterator[Workload]:
    batched, single = ([(n, *stage) for stage in STAGES] for n in (32, 1))
    yield from _cross(BATCH_NORM, IMAGES, batched[:1], both=True)
    yield from _cross(BATCH_NORM, IMAGES, batched)
    yield from _cross(BATCH_NORM, IMAGES, single)
    yield from _cross(FUSED, IMAGES, batched)
    yield from _cross(PER_IMAGE, IMAGES, (BATCH,), both=True)
    yield from _cross(PER_IMAGE, IMAGES, (batched[2], batched[4], single[1]))
    odd = ((32, 50, 56, 56), (32, 100, 28, 28))
    yield from _cross(("batch_norm_training", "batch_norm_training_backward"), IMAGES, odd)
    yield from _cross((*BATCH_NORM, "instance_norm"), ("NCHW",), ((32, 1, 224, 224),))


def _rows() -> Iterator[Workload]:
    yield from _cross((*ROW_NORM, *ADDED, *ROW_BACKWARD), ("rows",), ROWS[1:2], both=True)
    yield from _cross((*ROW_NORM, *ROW_BACKWARD), ("rows",), ROWS)
    yield from _cross(ADDED, ("rows",), (ROWS[0], *ROWS[2:4]))
    yield from _cross(ROW_NORM, ("rows",), SHORT)
    yield from _cross(ROW_BACKWARD, ("rows",), (SHORT[1], SHORT[4]))
    yield from _cross((*ROW_NORM, *ROW_BACKWARD), ("rows",), ((8, 16), (1, 10_000_000)))


def _tables() -> Iterator[Workload]:
    yield from _cross(("batch_norm_training", *SCALERS), ("table",), TABLES[:1], both=True)
    yield from _cross((*BATCH_NORM, *SCALERS), ("table",), TABLES)
    yield from _cross(("batch_norm_training", "batch_norm_inference"), ("table",), ((8, 16),))
    yield from _cross(("group_norm",), ("table",), TABLES[:1])


def _dtypes() -> Iterator[Workload]:
    others = ("float64", *HALF)
    yield from _cross(("layer_norm", "rms_norm", "layer_norm_backward", "add_rms_norm"), ("rows",), ROWS[1:2], others)
    yield from _cross(("layer_norm",), ("rows",), (ROWS[2], SHORT[4]), others)
    yield from _cross(("batch_norm_training", "batch_norm_training_backward"), IMAGES, (BATCH,), others)
    yield from _cross(("batch_norm_inference", "group_norm"), ("NCHW",), (BATCH,), others)
    yield from _cross(("standardize",), ("table",), TABLES[:1], others)


def full() -> Iterator[Workload]:
    """The whole matrix, each workload once."""
    seen: dict[Workload, None] = {}
    for part in (_images, _rows, _tables, _dtypes):
        seen |= dict.fromkeys(part())
    yield from seen


MATRICES = {"smoke": smoke, "quick": quick, "full": full}
