#include "cuda/backward.h"

#include <optional>

#include "cuda/finish_slots.h"
#include "cuda/launch.h"
#include "cuda/schedule.h"

namespace normkit::detail::cuda {
namespace {

void run_gradient(const Request& request, const Job& job, bool folds) {
  run_loops(request, job, [&](auto kernels, const Job& once) {
    if (folds) return kernels.gradient(once, request.dtype);
    kernels.apply_gradient(once, request.dtype);
  });
}

// Where the sums by parameters go.
void write_params(const Request& by_parameters, Job& job) {
  job.dweight = by_parameters.dweight.data;
  job.dbias = by_parameters.dbias.data;
  job.dweight_dtype = by_parameters.dweight.dtype;
  job.dbias_dtype = by_parameters.dbias.dtype;
}

// An element of a dense vector of the device or of the host, as the host sees it.
std::vector<double> on_host(const TensorView& view) {
  std::vector<double> values(static_cast<std::size_t>(view.size()));
  if (!view) return values;
  std::vector<char> bytes(values.size() * static_cast<std::size_t>(item_size(view.dtype)));
  if (view.device == Device::cuda) {
    download(bytes.data(), view.data, bytes.size());
  } else {
    std::memcpy(bytes.data(), view.data, bytes.size());
  }
  visit_storage(view.dtype, [&](auto tag) {
    const auto* from = reinterpret_cast<const typename decltype(tag)::Storage*>(bytes.data());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(load_value(from + i));
  });
  return values;
}

// Rows of one run, that fit the registers of their threads, of a block or of a cluster, and a parameter for each place
// of a row.
bool fits_slabs(const Request& request, const RowCut& cut) {
  const Geometry& g = request.plan.geometry;
  const auto& operands = request.operands;
  const bool varies_along_rows = g.reduced[2].extent == 1 || g.reduced[2].param_stride == 1;
  const bool is_shared_by_rows = g.kept[0].param_stride == 0 && g.kept[1].param_stride == 0;
  return cut.kept_units > 0 && !request.statistics_given && request.plan.loop_count == 0 && g.reduced[0].extent == 1 &&
         g.reduced[1].extent == 1 && varies_along_rows && is_shared_by_rows && request.activation == Activation::none &&
         operands[operand_mask] == nullptr && operands[operand_extra] == nullptr;
}

// What there is of GroupNorm along which weight is constant, if anything: planes, or columns. Rows of very short planes
// would leave more sums than they have values, unless they go by tiles.
std::optional<Geometry> weighed_lanes(const Request& request) {
  constexpr std::int64_t least_plane = 64;
  const Plan& plan = request.plan;
  const Geometry& g = plan.geometry;
  if (request.weight_is_constant || request.statistics_given || plan.loop_count > 0) return std::nullopt;
  if (g.schedule == Schedule::columns) return weighs_by_lane(g) ? std::optional(g) : std::nullopt;
  std::optional<Geometry> planes = planes_of(g);
  if (planes && planes->size() >= least_plane * planes->kept_count()) return planes;
  const std::optional<TileLanes> lanes = lanes_of_tiles(planes ? *planes : g, request.dtype, true);
  if (!lanes || cut_tiles(lanes->geometry, request.dtype, 2, lanes->layout).taken == 0) return std::nullopt;
  return planes ? planes : lanes->geometry;
}

// The half that gives dx, and where weight is constant over a statistic dweight and dbias too.
struct ByStatistics {
  const Request& request;
  OnDevice weight{request.weight, 1.0, request.weight_offset};
  OnDevice bias{request.bias, 0.0};
  OnDevice mean{request.given_mean, 0.0};
  OnDevice error{request.given_mean_error, 0.0};
  OnDevice rstd{request.given_rstd, 1.0};
  OnDevice gradient{request.given_gradient, 0.0};
  OnDevice projection{request.given_projection, 0.0};
  std::int64_t statistics = request.given_rstd.size();
  bool wants_params = request.weight_is_constant && (request.dweight || request.dbias);
  bool second_step = static_cast<bool>(request.given_gradient);
  bool leaves_sums = !request.sums.empty() && !second_step;
  std::optional<Memory> totals;

  explicit ByStatistics(const Request& of) : request(of) {}

  // Together with the sums by parameters; false where the rows are not such.
  bool run_by_slabs() const {
    const Geometry& g = request.plan.geometry;
    if (g.schedule != Schedule::rows) return false;
    Job job = make();
    job.rows = cut_slab_rows(g, request.dtype);
    if (job.rows.cluster_bits > 0) job.rows = cut_slab_rows(g, request.dtype, clusters());
    if (!fits_slabs(request, job.rows)) return false;
    job.slabs = cut_slabs(g, job.rows);
    const std::int64_t columns = g.reduced[2].extent;
    const Memory sums(static_cast<std::size_t>(job.slabs.slabs * 2 * columns * item_size(work_dtype(request.dtype))));
    job.slab_sums = sums.data();
    write_params(*request.by_parameters, job);
    run_loops(request, job, [&](auto kernels, const Job& once) { kernels.slabs(once, request.dtype); });
    return true;
  }

  // With the sums by parameters, if they are asked for, from those of lanes; false where there are no such lanes.
  bool run_by_lanes() const {
    const std::optional<Geometry> lanes = weighed_lanes(request);
    if (!lanes) return false;
    Job job = make();
    take_geometry(job, *lanes);
    job.sums_lanes = true;
    if (request.by_parameters != nullptr) write_params(*request.by_parameters, job);
    run_gradient(request, job, true);
    return true;
  }

  void run() {
    Job job = make();
    const bool folds = !second_step && (!request.statistics_given || wants_params || leaves_sums);
    if (wants_params || leaves_sums) {
      totals.emplace(static_cast<std::size_t>(statistics) * 4 * sizeof(double));
      if (folds) job.results.totals = totals->as<double>();
    }
    run_gradient(request, job, folds);
    if (leaves_sums) return leave_sums();
    if (second_step && wants_params) take_sums();
    if (wants_params) share_sums();
  }

 private:
  Job make() const {
    Job job = job_for(request);
    job.gradient = true;
    job.weight = weight;
    job.bias = bias;
    job.given_mean = mean;
    job.mean_error = error;
    job.given_rstd = rstd;
    job.given_gradient = gradient;
    job.given_projection = projection;
    job.weighs = !request.weight_is_constant && request.weight;
    job.weights = std::max<std::int64_t>(1, request.weight.data != nullptr ? request.weight.size() : 1);
    job.given = request.statistics_given || leaves_sums;
    job.share = 1.0 / static_cast<double>(job.geometry.count);
    job.results.mean_error = request.mean_error;
    return job;
  }

  // The first of two steps: the sums are what is wanted.
  void leave_sums() const {
    std::vector<double> values(static_cast<std::size_t>(statistics) * 4);
    download(values.data(), totals->data(), values.size() * sizeof(double));
    const std::vector<double> means = on_host(request.given_mean);
    const std::vector<double> rstds = on_host(request.given_rstd);
    for (std::size_t s = 0; s < request.sums.size(); ++s) {
      const double* total = values.data() + 4 * s;
      request.sums[s] = {.count = total[0],
                         .mean = means[s],
                         .rstd = rstds[s],
                         .centred = total[1],
                         .gradient = total[2],
                         .projection = total[3]};
    }
  }
  // The second: they are known.
  void take_sums() const {
    std::vector<double> values(static_cast<std::size_t>(statistics) * 4);
    for (std::size_t s = 0; s < request.sums.size(); ++s) {
      values[4 * s + 2] = request.sums[s].gradient;
      values[4 * s + 3] = request.sums[s].projection;
    }
    upload(totals->data(), values.data(), values.size() * sizeof(double));
  }
  void share_sums() const {
    const std::int64_t params = request.dweight ? request.dweight.size() : request.dbias.size();
    const ShareSums kernel{totals->as<double>(),  statistics,         params, request.dweight.data, request.dbias.data,
                           request.dweight.dtype, request.dbias.dtype};
    launch(kernel, launch_each(params * warp_size));
  }
};

// The half that gives dweight and dbias where weight varies within a statistic.
void by_parameters(const Request& request) {
  const OnDevice weight(request.weight, 1.0, request.weight_offset);
  const OnDevice bias(request.bias, 0.0);
  const OnDevice mean(request.given_mean, 0.0);
  const OnDevice error(request.given_mean_error, 0.0);
  const OnDevice rstd(request.given_rstd, 1.0);
  Job job = job_for(request);
  job.gradient = true;
  job.weight = weight;
  job.bias = bias;
  job.given_mean = mean;
  job.mean_error = error;
  job.given_rstd = rstd;
  job.given = request.statistics_given;
  write_params(request, job);
  run_gradient(request, job, true);
}

}  // namespace

void backward(const Request& request) {
  if (request.column == Column::parameters) return by_parameters(request);
  ByStatistics by_statistics(request);
  if (by_statistics.run_by_lanes()) return;
  if (request.by_parameters == nullptr) return by_statistics.run();
  if (by_statistics.run_by_slabs()) return;
  by_statistics.run();
  by_parameters(*request.by_parameters);
}

}  // namespace normkit::detail::cuda
