// From a job to launches, for values of one type: what kernels.h declares. Included by kernels_*.cu alone.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// It does not see that weight and bias are used no more often than they are read.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <optional>

#include "cuda/columns.h"
#include "cuda/finish_slots.h"
#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/rows.h"
#include "cuda/slabs.h"
#include "cuda/tiles.h"
#include "visit.h"

namespace normkit::detail::cuda {

/// Memory for lanes.
class LaneMemory {
 public:
  LaneMemory(Job& job, DType dtype, bool gradient)
      : memory_(static_cast<std::size_t>(job.slots * (gradient ? 6 : 3) * item_size(work_dtype(dtype)))) {
    const std::int64_t bytes = job.slots * item_size(work_dtype(dtype));
    char* next = memory_.as<char>();
    for (void** lane : {&job.lanes.mean_high, &job.lanes.mean_low, &job.lanes.scale, &job.lanes.rstd,
                        &job.lanes.gradient, &job.lanes.projection}) {
      if (!gradient && lane == &job.lanes.rstd) break;
      *lane = next;
      next += bytes;
    }
  }

 private:
  Memory memory_;
};

/// Calls run(form) with the form of a job, as a constant. Rows that begin anywhere are of the general form to most.
template <class Run>
void visit_form(Job& job, DType dtype, Run run) {
  switch (form_of(job, dtype)) {
    case Form::lines: return run(std::integral_constant<Form, Form::lines>{});
    case Form::plain: return run(std::integral_constant<Form, Form::plain>{});
    default: return run(std::integral_constant<Form, Form::general>{});
  }
}
/// The same of rows that threads keep, to which they are of their own form if they are long enough.
template <class S, class Run>
void visit_row_form(Job& job, DType dtype, Run run) {
  if constexpr (sizeof(S) < 8) {
    if (go_by_block(job.rows) && form_of(job, dtype) == Form::unaligned) {
      return run(std::integral_constant<Form, Form::unaligned>{});
    }
  }
  visit_form(job, dtype, run);
}
/// The forms that kernels are compiled for where fewer do: rows of which each is more work, and columns.
constexpr Form long_form(Form form) { return has_whole_units(form) ? Form::plain : Form::general; }
constexpr Form column_form(Form form, Column by = Column::statistics) {
  if (by == Column::parameters) return long_form(form);
  return form == Form::lines ? form : Form::general;
}

template <class S, Task task>
void map_rows(Job& job, DType dtype) {
  job.rows = cut_rows(job.geometry, dtype, 0);
  const Launch shape = launch_rows(job.geometry, job.rows);
  visit_form(job, dtype, [&](auto any) {
    constexpr Form form = long_form(any);
    const auto run = [&](auto beside) { launch(MapRows<S, task, form, beside>{job, shape.blocks}, shape); };
    constexpr bool may_have = task == Task::normalize || task == Task::gradient;
    constexpr bool asks = form == Form::general;  // for each unit, so that one kernel does
    if constexpr (may_have) {
      if (asks || has_beside<task == Task::gradient>(job)) return run(std::true_type{});
    }
    if constexpr (!may_have || !asks) run(std::false_type{});
  });
}
template <class S, Task task>
void map_columns(Job& job, DType dtype) {
  job.columns = cut_columns(job.geometry, dtype, false);
  const Launch shape = launch_columns(job.geometry, job.columns, false);
  visit_form(job, dtype, [&](auto any) {
    constexpr Form form = column_form(any);
    if constexpr (form == Form::lines && (task == Task::normalize || task == Task::gradient)) {
      if (maps_alone<task>(job) && params_stay(job.geometry)) {
        return launch(MapColumns<S, task, form, true>{job, shape.blocks}, shape);
      }
    }
    launch(MapColumns<S, task, form, false>{job, shape.blocks}, shape);
  });
}
template <class S, Task task>
void run_map(Job job, DType dtype) {
  if (!maps(job)) return;
  if (job.geometry.schedule == Schedule::rows) return map_rows<S, task>(job, dtype);
  map_columns<S, task>(job, dtype);
}

/// Rows that are folded and mapped in one go.
template <class S, class Sums>
void run_whole_rows(Job& job, DType dtype) {
  constexpr int kept = Sums::task == Task::gradient ? 2 : 1;
  Launch shape = launch_rows(job.geometry, job.rows);
  if (job.rows.by_block) {
    const int parts = shape.shared_bytes;
    const std::int64_t bytes = parts + kept_bytes(job.rows, kept);
    if (!has_whole_units(form_of(job, dtype)) || bytes > most_shared_bytes()) {
      return launch(RunLongRows<S, Sums, Form::general, long_row_threads>{job, parts}, shape);
    }
    shape.shared_bytes = static_cast<int>(bytes);
    if (shape.threads == block_threads) {
      return launch(RunLongRows<S, Sums, Form::plain, block_threads>{job, parts}, shape);
    }
    return launch(RunLongRows<S, Sums, Form::plain, long_row_threads>{job, parts}, shape);
  }
  visit_row_form<S>(job, dtype, [&](auto form) {
    if constexpr (form == Form::general) {
      launch(RunRows<S, Sums, 1, form>{job}, shape);  // which keeps nothing
    } else if constexpr (form == Form::unaligned) {
      shape.shared_bytes += (kept == 2 || job.adds ? 2 : 1) * block_rows_bytes(job.rows);
      if (job.rows.kept_units == 4) return launch(RunRows<S, Sums, 4, form>{job}, shape);
      if constexpr (kept == 1) launch(RunRows<S, Sums, 8, form>{job}, shape);
    } else {
      switch (job.rows.kept_units) {
        case 1: return launch(RunRows<S, Sums, 1, form>{job}, shape);
        case 2: return launch(RunRows<S, Sums, 2, form>{job}, shape);
        case 4: return launch(RunRows<S, Sums, 4, form>{job}, shape);
        default:
          if constexpr (kept == 1) launch(RunRows<S, Sums, 8, form>{job}, shape);
      }
    }
  });
}

/// Lanes that are folded and mapped in one go, tile by tile; false where there are no tiles.
template <class S, class Sums>
bool run_tiles(Job job, DType dtype) {
  constexpr int kept = Sums::task == Task::gradient ? 2 : 1;
  if (job.column != Column::statistics) return false;
  const std::optional<TileLanes> lanes = lanes_of_tiles(job.geometry, dtype, kept == 2);
  if (!lanes) return false;
  const Layout layout = lanes->layout;
  const bool planes = layout == Layout::planes;
  take_geometry(job, lanes->geometry);
  job.aligned = planes ? are_dense_planes(job, dtype) : is_aligned(job.geometry, dtype, job.operands);
  const Geometry& g = job.geometry;
  job.tiles = cut_tiles(g, dtype, kept, layout);
  if (job.tiles.cluster_bits > 0) job.tiles = cut_tiles(g, dtype, kept, layout, clusters());
  if (job.tiles.taken == 0 || (job.over_batch && are_too_few(g, job.tiles, dtype, kept))) return false;
  job.columns = cut_columns(g, dtype);
  const int blocks = 1 << job.tiles.cluster_bits;
  const Memory partials(job.sums_lanes ? static_cast<std::size_t>(g.kept_count() * blocks * 4) * sizeof(double) : 0);
  job.partials = partials.as<double>();
  const bool lines = form_of_tiles(job, dtype) == Form::lines;
  Launch shape = launch_tiles(g, job.tiles, dtype, kept, lines);
  const bool keeps = lines && shape.shared_bytes <= most_shared_bytes();
  if (!keeps) {
    shape = launch_tiles(g, job.tiles, dtype, kept, false);
    launch(RunTiles<S, Sums, Form::general, Layout::columns>{job}, shape);  // of whatever layout
  } else if (planes) {
    launch(RunTiles<S, Sums, Form::lines, Layout::planes>{job}, shape);
  } else {
    launch(RunTiles<S, Sums, Form::lines, Layout::columns>{job}, shape);
  }
  if (job.sums_lanes && (job.dweight != nullptr || job.dbias != nullptr)) {
    launch(ShareLanes{job, blocks}, launch_each(g.kept[1].extent * warp_size));
  }
  return true;
}

/// Folds, finishes and maps.
template <class S, class Sums>
void run_fold(Job job, DType dtype) {
  constexpr bool gradient = Sums::task == Task::gradient;
  if constexpr (Sums::is_kept) {
    if (run_tiles<S, Sums>(job, dtype)) return;
  }
  const Geometry& g = job.geometry;
  const bool rows = g.schedule == Schedule::rows;
  if (rows) {
    const bool maps_too = Sums::is_kept && job.column == Column::statistics && !job.sums_lanes;
    const int operands = maps_too ? (gradient ? 2 : 1) : 0;
    job.rows = cut_rows(g, dtype, operands);
    if (job.rows.cluster_bits > 0) job.rows = cut_rows(g, dtype, operands, clusters());
    if constexpr (Sums::is_kept) {
      const bool kept = maps_too && (job.rows.by_block || job.rows.kept_units > 0);
      if (kept) return run_whole_rows<S, Sums>(job, dtype);
    }
  } else {
    job.columns = cut_columns(g, dtype, true, job.over_batch);
  }
  const std::int64_t chunks = rows ? job.rows.chunks : job.columns.chunks;
  const Memory partials(static_cast<std::size_t>(g.kept_count() * chunks * Sums::terms) * sizeof(double));
  job.partials = partials.as<double>();
  std::optional<LaneMemory> lanes;
  if (maps(job)) lanes.emplace(job, dtype, gradient);
  Job folded = job;
  if (job.sums_lanes) folded.weighs = false;
  const auto fold = [&](auto form, auto by) {
    if (rows) return launch(FoldRows<S, Sums, long_form(form), by>{folded}, launch_rows(g, job.rows));
    launch(FoldColumns<S, Sums, column_form(form, by), by>{folded}, launch_columns(g, job.columns));
  };
  visit_form(folded, dtype, [&](auto form) {
    if constexpr (gradient) {
      if (job.column == Column::parameters) return fold(form, std::integral_constant<Column, Column::parameters>{});
    }
    fold(form, std::integral_constant<Column, Column::statistics>{});
  });
  const int threads = finish_threads(g.pooled * chunks);
  launch(FinishSlots<Work<S>, Sums>{job, chunks, threads}, launch_finish(job.slots, threads));
  if (job.sums_lanes && (job.dweight != nullptr || job.dbias != nullptr)) {
    launch(ShareLanes{job, chunks}, launch_each(g.kept[1].extent * warp_size));
  }
  Job mapped = job;
  mapped.adds = false;  // the sum is there already, and second is no residual
  if (job.adds) mapped.operands[operand_second] = mapped.operands[operand_third] = nullptr;
  run_map<S, Sums::task>(mapped, dtype);
}

/// Lanes from given statistics, and a map.
template <class S, Task task>
void run_given(Job job, DType dtype) {
  const bool writes = job.results.mean != nullptr || job.results.rstd != nullptr;
  if (task == Task::normalize && job.geometry.schedule == Schedule::rows && !writes) {
    return run_map<S, task>(job, dtype);  // where a thread takes one lane by itself
  }
  const LaneMemory lanes(job, dtype, task == Task::gradient);
  launch(TakeGiven<Work<S>>{job, task == Task::gradient}, launch_each(job.slots));
  run_map<S, task>(job, dtype);
}

/// `centred`: slabs.h; short rows gain nothing by being of a kind of their own.
template <class S, Form form, bool centred>
void run_slabs_of(const Job& job, const Launch& shape) {
  if constexpr (form != Form::unaligned) {
    if (job.rows.kept_units == 1) return launch(RunSlabs<S, 1, slab_threads, form, false, true>{job}, shape);
    if (job.rows.kept_units == 2) return launch(RunSlabs<S, 2, slab_threads, form, false, true>{job}, shape);
  }
  const auto run = [&](auto full) {
    if (job.rows.group > slab_threads) return launch(RunSlabs<S, 4, block_threads, form, full, centred>{job}, shape);
    launch(RunSlabs<S, 4, slab_threads, form, full, centred>{job}, shape);
  };
  if constexpr (form == Form::lines) {
    if (job.rows.units == std::int64_t{4} * job.rows.group) return run(std::true_type{});
  }
  run(std::false_type{});
}
/// Rows of gradients with those of parameters, slab by slab.
template <class S>
void run_slabs(Job job, DType dtype) {
  visit_row_form<S>(job, dtype, [&](auto of) {
    constexpr Form form = are_lines(of) ? of : Form::general;
    const Launch shape = launch_slabs(job.rows, job.slabs, dtype, form);
    if (shape.shared_bytes > most_shared_bytes()) {  // as of some unaligned ones, on small devices
      return run_slabs_of<S, Form::general, true>(job, launch_slabs(job.rows, job.slabs, dtype, Form::general));
    }
    if constexpr (form != Form::general) {
      const bool centred =
          job.statistic == Statistic::variance || job.given_mean.data != nullptr || job.dbias != nullptr;
      if (!centred) return run_slabs_of<S, form, false>(job, shape);
    }
    run_slabs_of<S, form, true>(job, shape);
  });
  const std::int64_t columns = job.geometry.reduced[2].extent;
  launch(FinishSlabs<Work<S>>{static_cast<const Work<S>*>(job.slab_sums), job.slabs.slabs, columns, job.dweight,
                              job.dbias, job.dweight_dtype, job.dbias_dtype},
         launch_finish_slabs(columns));
}

template <class S>
void ForwardKernels<S>::normalize(const Job& job, DType dtype) {
  run_fold<S, VarianceSums<Work<S>, false>>(job, dtype);
}
template <class S>
void ForwardKernels<S>::rescale(const Job& job, DType dtype) {
  run_fold<S, RangeSums<Work<S>>>(job, dtype);
}
template <class S>
void ForwardKernels<S>::moments(const Job& job, DType dtype) {
  run_fold<S, VarianceSums<Work<S>, true>>(job, dtype);
}
template <class S>
void ForwardKernels<S>::apply(const Job& job, DType dtype) {
  run_given<S, Task::normalize>(job, dtype);
}
template <class S>
void ForwardKernels<S>::scale(const Job& job, DType dtype) {
  run_map<S, Task::scale>(job, dtype);
}
template <class S>
void BackwardKernels<S>::gradient(const Job& job, DType dtype) {
  run_fold<S, GradientSums<Work<S>>>(job, dtype);
}
template <class S>
void BackwardKernels<S>::apply_gradient(const Job& job, DType dtype) {
  if (maps(job)) run_given<S, Task::gradient>(job, dtype);
}
template <class S>
void BackwardKernels<S>::slabs(const Job& job, DType dtype) {
  run_slabs<S>(job, dtype);
}

}  // namespace normkit::detail::cuda
