// The two halves of a backward pass as jobs: by statistics, which gives dx, and by parameters.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>

#include "cpu/given.h"
#include "cpu/parallel.h"
#include "cpu/params.h"
#include "cpu/run.h"
#include "half.h"
#include "math.h"
#include "visit.h"

namespace normkit::detail {

// Terms of the gradient's fold (cpu/gradient.h), once it is finished.
enum Term : std::size_t { term_centred, term_bias, term_weight };

// dx and dy are as large as x.
inline std::int64_t bytes_per_value(const Request& request) { return 2 * item_size(request.dtype); }

// What is known to be missing from the given means; null where nothing is.
inline const double* mean_errors(const Request& request) {
  return static_cast<const double*>(request.given_mean_error.data);
}

// The lanes from given statistics. Where those do not depend on x, nothing is left for `finish` to find out.
template <class C>
void take_given(const Request& request, const Job& job, std::int64_t offset) {
  const Geometry& g = job.geometry;
  const auto lane = [&](LaneName name) { return static_cast<C*>(job.lanes[name]); };
  const auto clear = [&](LaneName name) { std::fill_n(lane(name), g.kept_count(), C{0}); };
  const auto as_it_is = [](double value, std::int64_t) { return value; };
  if (request.given_gradient) {
    fill_lanes(g, offset, request.given_gradient, lane(lane_gradient), as_it_is);
    fill_lanes(g, offset, request.given_projection, lane(lane_projection), as_it_is);
  } else if (request.statistics_given) {  // else `finish` fills them
    clear(lane_gradient);
    clear(lane_projection);
  }
  if (!request.given_mean) {
    clear(lane_mean_high);
    clear(lane_mean_low);
  } else {
    fill_means(g, offset, request.given_mean, mean_errors(request), lane(lane_mean_high), lane(lane_mean_low));
  }
  fill_lanes(g, offset, request.given_rstd, lane(lane_rstd), as_it_is);
  const bool weighs = request.weight_is_constant && request.weight;
  const std::int64_t weights = weighs ? request.weight.size() : 1;
  fill_lanes(g, offset, request.given_rstd, lane(lane_scale), [&](double rstd, std::int64_t s) {
    return weighs ? rstd * element(request.weight, s < weights ? s : s % weights) : rstd;
  });
}

// Weight and bias of each lane, for a fold by parameters through an activation that needs them.
template <class C>
void take_params(const Request& request, const Job& job, std::int64_t offset) {
  for_lanes(job.geometry, offset, [&](std::int64_t l, std::int64_t p) {
    static_cast<C*>(job.lanes[0])[l] = request.weight ? static_cast<C>(element(request.weight, p)) : C{1};
    static_cast<C*>(job.lanes[1])[l] = request.bias ? static_cast<C>(element(request.bias, p)) : C{0};
  });
}

// Terms of statistics side by side, uninitialized.
class Totals {
 public:
  void resize(std::size_t size) {
    memory_ = std::make_unique_for_overwrite<double[]>(size);
    size_ = size;
  }
  [[nodiscard]] double* data() const noexcept { return memory_.get(); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  double operator[](std::size_t i) const noexcept { return memory_[i]; }

 private:
  std::unique_ptr<double[]> memory_;
  std::size_t size_ = 0;
};

template <class S>
void store_sum(S* p, double value) {
  if constexpr (sizeof(S) == 2) {
    store_value(p, static_cast<float>(value));
  } else {
    *p = static_cast<S>(value);
  }
}

// The sums, over all statistics that share a weight, of parameters [begin, end), in order: weight varies along the last
// of the axes that index a statistic.
inline void store_sums(const TensorView& gradient, const Totals& totals, std::size_t terms, Term term,
                       std::int64_t begin, std::int64_t end) {
  if (!gradient) return;
  const auto params = static_cast<std::size_t>(gradient.size());
  visit_storage(gradient.dtype, [&](auto tag) {
    auto* result = static_cast<typename decltype(tag)::Storage*>(gradient.data);
    constexpr std::size_t most = 256;
    for (auto first = static_cast<std::size_t>(begin); first < static_cast<std::size_t>(end); first += most) {
      const std::size_t count = std::min(most, static_cast<std::size_t>(end) - first);
      double sums[most] = {};
      for (std::size_t s = first; s * terms < totals.size(); s += params) {
        for (std::size_t p = 0; p < count; ++p) sums[p] += totals[(s + p) * terms + term];
      }
      for (std::size_t p = 0; p < count; ++p) store_sum(result + first + p, sums[p]);
    }
  });
}
// Of dweight and dbias, each thread's share of the parameters.
inline void store_sums(const Team& team, const TensorView& dweight, const TensorView& dbias, const Totals& totals,
                       std::size_t terms) {
  team.share((dweight ? dweight : dbias).size(), [&](std::int64_t begin, std::int64_t end) {
    store_sums(dweight, totals, terms, term_weight, begin, end);
    store_sums(dbias, totals, terms, term_bias, begin, end);
  });
}
inline void store_sums(const TensorView& dweight, const TensorView& dbias, const Totals& totals, std::size_t terms) {
  auto store = [&](const Team& team) { store_sums(team, dweight, dbias, totals, terms); };
  parallel(threads_for(static_cast<std::int64_t>(totals.size() * sizeof(double))), store);
}

template <class Take>
void with_work_type(DType dtype, Take take) {
  if (dtype == DType::float64) return take(double{});
  take(float{});
}

// The given statistics of each sample and channel, the mean as two parts as wide as the kernels' words: what varies
// along a reduction by parameters. As they are where they serve.
struct Given {
  const Request& request;
  Param along[3] = {{{}, 0.0, 0.0, true}, {{}, 0.0, 0.0, true}, {{}, 1.0}};
  std::unique_ptr<std::byte[]> words;

  explicit Given(const Request& of) : request(of) {
    along[0].given = of.given_mean;
    along[1].given = of.given_mean_error;
    along[2].given = of.given_rstd;
    const bool has_word = !of.given_mean || of.given_mean.dtype == work_dtype(of.dtype);
    if (has_word && of.channels_per_statistic == 1) return;
    with_work_type(of.dtype, [this](auto zero) { repeat<decltype(zero)>(); });
  }
  template <class C>
  void repeat() {
    const std::int64_t size[] = {request.given_rstd.size() * request.channels_per_statistic};
    const std::int64_t bytes = size[0] * static_cast<std::int64_t>(sizeof(C));
    words = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(3 * bytes));
    C* lanes[3];
    for (int k = 0; k < 3; ++k) {
      lanes[k] = reinterpret_cast<C*>(words.get() + k * bytes);
      const bool is_known = k == 2 || request.given_mean;
      along[k].given = is_known ? make_view(lanes[k], work_dtype(request.dtype), size, {}, Device::cpu) : TensorView{};
    }
    auto work = [&](const Team& team) {
      team.share(request.given_rstd.size(), [&](std::int64_t begin, std::int64_t end) {
        Geometry channels;  // those of a statistic are pooled
        channels.pooled = request.channels_per_statistic;
        channels.kept[1] = {(end - begin) * channels.pooled, {}, 1, 0};
        const std::int64_t first = begin * channels.pooled;
        const auto as_it_is = [](double value, std::int64_t) { return value; };
        fill_lanes(channels, begin, request.given_rstd, lanes[2] + first, as_it_is);
        if (!request.given_mean) return;
        fill_means(channels, begin, request.given_mean, mean_errors(request), lanes[0] + first, lanes[1] + first);
      });
    };
    parallel(threads_for(3 * bytes), work);
  }
  // What of a statistic's mean is beyond its word.
  [[nodiscard]] double rest(std::int64_t statistic) const {
    if (words == nullptr || !request.given_mean) return 0.0;
    const double mean = element(request.given_mean, statistic);
    return request.dtype == DType::float64 ? 0.0 : mean - static_cast<double>(static_cast<float>(mean));
  }
};

// A job of either half, with what varies along its reduction.
inline Job gradient_job(const Request& request, Walk& walk, std::span<const Param> along, Params& params) {
  prepare_params(work_dtype(request.dtype), along, walk.geometry, params, walk.lanes_per_param);
  Job job = make_job(request, walk, Task::gradient);
  job.fetches_slabs = false;  // with x and dy of the next slab fetched ahead dx takes 25 cycles instead of 23
  return job;
}

// What is given of statistics is read where the job's lanes are.
inline void read_given_lanes(Job& job) {
  job.given_mean_high = job.lanes[lane_mean_high];
  job.given_mean_low = job.lanes[lane_mean_low];
  job.given_rstd = job.lanes[lane_rstd];
}

// The half of a backward pass that gives dx.
struct ByStatistics {
  const Request& request;
  Walk walk = walk_of(request, folded_planes);
  const Geometry& geometry = walk.geometry;
  Params params;
  Job job;
  LaneScratch scratch;
  std::size_t terms = static_cast<std::size_t>(terms_of(job));
  Totals totals;
  bool sums = false;  // whether any are wanted

  explicit ByStatistics(const Request& of)
      : request(of), job(make(of, walk, params)), scratch(job, of.dtype, lane_count) {
    read_given_lanes(job);
    if (of.given_gradient) {
      take_sums();
      return;
    }
    job.mean_error = of.mean_error;
    const bool wants_params = of.weight_is_constant && (of.dweight || of.dbias);
    sums = !of.statistics_given || wants_params;
    if (!wants_params && of.sums.empty()) return;
    totals.resize(static_cast<std::size_t>(of.given_rstd.size()) * terms);
    job.totals = totals.data();
  }
  static Job make(const Request& of, Walk& walk, Params& params) {
    const Param given[] = {{of.weight, 1.0, of.weight_offset}, {of.bias, 0.0}};
    Job job = gradient_job(of, walk, given, params);
    take_affine(params, job);
    return job;
  }

  // The second of two steps: the totals are known.
  void take_sums() {
    totals.resize(request.sums.size() * terms);
    for (std::size_t s = 0; s < request.sums.size(); ++s) {
      totals.data()[s * terms + term_bias] = request.sums[s].gradient;
      totals.data()[s * terms + term_weight] = request.sums[s].projection;
    }
  }
  // The first of two steps: they are what is wanted.
  void leave_sums() const {
    for (std::size_t s = 0; s < request.sums.size(); ++s) {
      const double* total = totals.data() + s * terms;
      const auto index = static_cast<std::int64_t>(s);
      request.sums[s] = {.count = terms == 4 ? total[3] : static_cast<double>(geometry.count),
                         .mean = element(request.given_mean, index),
                         .rstd = element(request.given_rstd, index),
                         .centred = total[term_centred],
                         .gradient = total[term_bias],
                         .projection = total[term_weight]};
    }
  }

  void take(Job& once, std::int64_t offset) const {
    with_work_type(request.dtype, [&](auto zero) { take_given<decltype(zero)>(request, once, offset); });
  }
  // Takes what is given, and runs.
  void run(Job& once, std::int64_t offset) {
    struct Filling {
      const ByStatistics& half;
      std::int64_t begin;
    } filling{*this, offset};
    const auto fill = [](void* context, Job& portion, std::int64_t first) noexcept {
      const auto& [half, begin] = *static_cast<const Filling*>(context);
      read_given_lanes(portion);
      half.take(portion, begin + first);
    };
    if (has_portions(once, request.dtype, bytes_per_value(request))) {
      return run_in_portions(once, request.dtype, bytes_per_value(request), fill, &filling);
    }
    take(once, offset);
    detail::run(once, request.dtype, bytes_per_value(request));
  }
  void finish() const {
    if (request.weight_is_constant) store_sums(request.dweight, request.dbias, totals, terms);
  }
};

// A tensor of results that the kernels write in their own words: the caller's memory where that serves.
class Written {
 public:
  Written(const TensorView& results, DType word) : results_(results), as_it_is_(results.dtype == word) {
    if (!as_it_is_) words_ = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(results.size()));
  }
  [[nodiscard]] void* data() const { return as_it_is_ ? results_.data : words_.get(); }
  void store() const {
    if (as_it_is_) return;
    visit_storage(results_.dtype, [&](auto tag) {
      auto* to = static_cast<typename decltype(tag)::Storage*>(results_.data);
      for (std::int64_t i = 0; i < results_.size(); ++i) store_sum(to + i, words_[static_cast<std::size_t>(i)]);
    });
  }

 private:
  TensorView results_;
  bool as_it_is_;
  std::unique_ptr<float[]> words_;  // of half precision
};

// The half that gives dweight and dbias where weight varies within a statistic.
struct ByParameters {
  const Request& request;
  Walk walk{request.plan.geometry};
  Given given;
  Params params;
  Job job;
  LaneScratch scratch;
  Written dbias, dweight;

  explicit ByParameters(const Request& of)
      : request(of),
        given(of),
        job(make(of, walk, given, params)),
        scratch(job, of.dtype, of.activation == Activation::silu ? 2 : 0),
        dbias(of.dbias, work_dtype(of.dtype)),
        dweight(of.dweight, work_dtype(of.dtype)) {
    job.weight = job.lanes[0];
    job.bias = job.lanes[1];
    if (of.dbias) job.dbias = dbias.data();
    if (of.dweight) job.dweight = dweight.data();
  }
  static Job make(const Request& of, Walk& walk, const Given& given, Params& params) {
    Job job = gradient_job(of, walk, given.along, params);
    job.given_mean_high = params.values[0];
    job.given_mean_low = params.values[1];
    job.given_rstd = params.values[2];
    return job;
  }

  void take(Job& once, std::int64_t offset) const {
    if (request.activation != Activation::silu) return;
    with_work_type(request.dtype, [&](auto zero) { take_params<decltype(zero)>(request, once, offset); });
  }
  void finish() const {
    if (request.dbias) dbias.store();
    if (request.dweight) dweight.store();
  }
};

}  // namespace normkit::detail
