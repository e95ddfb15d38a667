// Prints "name hash" for results of every normalizer, one a line: the same lines on every instruction set and
// processor, whatever the number of threads. Data comes from integers alone, so that no library has a part in it.
#include <normkit/normkit.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace normkit;
using Extents = std::vector<std::int64_t>;

struct Random {
  std::uint64_t state;
  std::uint32_t next() {  // a 64-bit linear congruential generator's upper half (Knuth)
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state >> 32);
  }
};

// Finite values of the dtype, between about 2^-6 and 2^6 and off centre, from random bits.
std::vector<std::byte> random_values(DType dtype, std::int64_t count, std::uint64_t seed) {
  Random random{seed};
  std::vector<std::byte> bytes(static_cast<std::size_t>(count * item_size(dtype)));
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const std::uint32_t bits = random.next();
    const auto store = [&](auto value) { std::memcpy(&bytes[i * sizeof value], &value, sizeof value); };
    const auto integer = static_cast<std::int32_t>(bits >> 8) - (1 << 23) + (1 << 21);
    const std::uint32_t sign = bits >> 31;
    switch (dtype) {
      case DType::float32: store(static_cast<float>(integer) / 4194304.0f); break;
      case DType::float64: store((static_cast<double>(integer) + random.next() / 4294967296.0) / 4194304.0); break;
      case DType::float16:
        store(static_cast<std::uint16_t>(sign << 15 | (9 + (bits >> 10) % 12) << 10 | bits % 1024));
        break;
      case DType::bfloat16:
        store(static_cast<std::uint16_t>(sign << 15 | (121 + (bits >> 7) % 12) << 7 | bits % 128));
        break;
      case DType::boolean: bytes[i] = static_cast<std::byte>(bits % 3 != 0); break;
    }
  }
  return bytes;
}

// The same values, made once: they take longer to make than to normalize.
const std::vector<std::byte>& values_of(DType dtype, std::int64_t count, std::uint64_t seed) {
  static std::map<std::tuple<DType, std::int64_t, std::uint64_t>, std::vector<std::byte>> made;
  const auto [at, is_new] = made.try_emplace({dtype, count, seed});
  if (is_new) at->second = random_values(dtype, count, seed);
  return at->second;
}

struct Hash {
  std::uint64_t value = 14695981039346656037u;  // FNV-1a, of words rather than bytes, which take eight times as long
  void add(std::span<const std::byte> bytes) {
    std::uint64_t word = 0;
    for (; bytes.size() >= sizeof word; bytes = bytes.subspan(sizeof word)) {
      std::memcpy(&word, bytes.data(), sizeof word);
      add(word);
    }
    word = 0;
    if (!bytes.empty()) std::memcpy(&word, bytes.data(), bytes.size());
    add(word);
  }

 private:
  // A product's low bits depend on no higher ones: each word's high bits come down before the next.
  void add(std::uint64_t word) {
    value = (value ^ word) * 1099511628211u;
    value ^= value >> 32;
  }
};

Extents dense_strides(const Extents& shape, bool channels_last) {
  Extents strides(shape.size());
  std::int64_t stride = 1;
  if (channels_last) {
    strides[1] = 1;
    stride = shape[1];
  }
  for (std::size_t a = shape.size(); a-- > 0;) {
    if (channels_last && a == 1) continue;
    strides[a] = stride;
    stride *= shape[a];
  }
  return strides;
}

struct Case {
  Normalizer norm;
  const char* name;
  bool affine;
};

std::vector<Case> normalizers(const Extents& shape) {
  const int rank = static_cast<int>(shape.size());
  std::vector<Case> all = {{batch_norm(rank), "batch_norm", true},
                           {layer_norm(rank, {-1}), "layer_norm(-1)", true},
                           {layer_norm(rank, {1}), "layer_norm(1)", true},
                           {rms_norm(rank, {-1}), "rms_norm", true},
                           {standardize(rank, {0}, 1e-6, 1.0), "standardize(0)", false},
                           {min_max_scale(rank, {-1}, -0.1, 0.9), "min_max_scale(-1)", false},
                           {min_max_scale(rank, {0}, -0.1, 0.9), "min_max_scale(0)", false}};
  if (rank > 2) {
    all.push_back({instance_norm(rank), "instance_norm", true});
    all.push_back({group_norm(rank, shape[1] / 2), "group_norm(pairs)", true});
    all.push_back({group_norm(rank, 2), "group_norm(2)", true});
  }
  return all;
}

std::int64_t size_of(const Extents& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>{});
}

// The arguments of one case, and room for its results.
struct Data {
  Data(const Case& one, DType dtype, const Extents& shape, bool channels_last)
      : wide(dtype == DType::float64 ? DType::float64 : DType::float32),
        type(dtype),
        extents(shape),
        strides(dense_strides(shape, channels_last)),
        kept(statistics_shape(one.norm, shape)) {
    for (std::size_t a = 0; a < shape.size(); ++a) {
      if (((one.norm.affine >> a) & 1u) != 0) affine.push_back(shape[a]);
    }
  }

  [[nodiscard]] TensorView input(std::uint64_t seed, DType of) {
    return own(values_of(of, size_of(extents), seed), of, extents, strides);
  }
  [[nodiscard]] TensorView parameter(std::uint64_t seed) {
    return own(values_of(wide, size_of(affine), seed), wide, affine, {});
  }
  [[nodiscard]] TensorView output(DType of, const Extents& shape, const Extents& by) {
    const auto bytes = static_cast<std::size_t>(size_of(shape) * item_size(of));
    const TensorView view = own(std::vector<std::byte>(bytes), of, shape, by);
    written_.push_back(memory_.size() - 1);
    return view;
  }
  [[nodiscard]] TensorView result() { return output(type, extents, strides); }

  [[nodiscard]] std::uint64_t hash() const {
    Hash hash;
    for (const std::size_t index : written_) hash.add(memory_[index]);
    return hash.value;
  }

  DType wide, type;
  Extents extents, strides, kept, affine;

 private:
  TensorView own(std::vector<std::byte> bytes, DType of, const Extents& shape, const Extents& by) {
    memory_.push_back(std::move(bytes));
    return view(memory_.back().data(), of, shape, by);
  }

  std::deque<std::vector<std::byte>> memory_;  // whose elements stay where they are
  std::vector<std::size_t> written_;
};

// The hash of all that forward() writes; `fused`: through a mask, a residual and an activation.
std::uint64_t forward_bits(const Case& one, DType dtype, const Extents& shape, bool channels_last, bool fused) {
  Data data(one, dtype, shape, channels_last);
  Forward arguments{.x = data.input(1, dtype), .y = data.result()};
  if (one.affine) arguments.weight = data.parameter(2);
  if (one.affine && one.norm.statistic == Statistic::variance) arguments.bias = data.parameter(3);
  if (one.norm.statistic == Statistic::variance) arguments.mean = data.output(data.wide, data.kept, {});
  if (one.norm.statistic != Statistic::range) arguments.rstd = data.output(data.wide, data.kept, {});
  if (fused) {
    arguments.mask = data.input(7, DType::boolean);
    if (one.norm.least_count > 1) {  // batch_norm: not along the channels
      arguments.mask.strides[1] = 0;
    }
    arguments.residual = data.input(5, dtype);
    arguments.activation = Activation::silu;
  }
  forward(one.norm, arguments);
  return data.hash();
}

// The hash of all that backward() writes.
std::uint64_t backward_bits(const Case& one, DType dtype, const Extents& shape, bool channels_last, bool fused) {
  Data data(one, dtype, shape, channels_last);
  Backward arguments{.x = data.input(1, dtype), .dy = data.input(6, dtype)};
  Forward first{.x = arguments.x};
  if (one.norm.statistic == Statistic::variance) first.mean = data.output(data.wide, data.kept, {});
  first.rstd = data.output(data.wide, data.kept, {});
  if (fused) {
    first.mask = data.input(7, DType::boolean);
    if (one.norm.least_count > 1) first.mask.strides[1] = 0;
  }
  forward(one.norm, first);
  arguments.mean = first.mean;
  arguments.rstd = first.rstd;
  arguments.mask = first.mask;
  arguments.weight = data.parameter(2);
  arguments.dx = data.result();
  arguments.dweight = data.output(data.wide, data.affine, {});
  if (one.norm.statistic == Statistic::variance) arguments.dbias = data.output(data.wide, data.affine, {});
  if (fused) {
    arguments.activation = Activation::silu;
    arguments.bias = data.parameter(3);
  }
  backward(one.norm, arguments);
  return data.hash();
}

// The hash of the moments of data, or of its range; `fused`: of what a mask leaves, by weights.
std::uint64_t moments_bits(const Case& one, DType dtype, const Extents& shape, bool channels_last, bool fused) {
  Data data(one, dtype, shape, channels_last);
  std::vector<Moments> out(static_cast<std::size_t>(size_of(data.kept)));
  TensorView weights;
  if (fused) {
    weights = data.input(8, data.wide);
    const auto absolute = [&](auto* values) {
      for (std::int64_t i = 0; i < weights.size(); ++i) values[i] = values[i] < 0 ? -values[i] : values[i];
    };
    data.wide == DType::float64 ? absolute(static_cast<double*>(weights.data))
                                : absolute(static_cast<float*>(weights.data));
  }
  const TensorView mask = fused ? data.input(7, DType::boolean) : TensorView{};
  moments(one.norm, data.input(1, dtype), out, mask, Nan::omit, weights);
  if (one.norm.statistic == Statistic::range) {  // a NaN's bits are the processor's choice
    for (Moments& m : out) m.mean = m.m2 = 0.0;
  }
  Hash hash;
  hash.add(std::as_bytes(std::span(out)));
  return hash.value;
}

// The hash of what scale() writes; `fused`: inversely.
std::uint64_t scale_bits(const Case& one, DType dtype, const Extents& shape, bool channels_last, bool fused) {
  Data data(one, dtype, shape, channels_last);
  std::vector<double> numbers(static_cast<std::size_t>(size_of(data.kept)));
  std::iota(numbers.begin(), numbers.end(), 0.375);
  const TensorView given = view(numbers.data(), DType::float64, data.kept, {});
  scale(one.norm, {.x = data.input(1, dtype), .scale = given, .shift = given, .y = data.result(), .inverse = fused});
  return data.hash();
}

using Bits = std::uint64_t (*)(const Case& one, DType dtype, const Extents& shape, bool channels_last, bool fused);

// Prints the bits with one thread; returns how many other numbers of threads gave others.
int print_bits(const char* what, Bits bits, const Case& one, DType dtype, const Extents& shape, bool channels_last,
               bool fused) {
  std::string extents;
  for (const std::int64_t extent : shape) extents.append(extents.empty() ? "" : "x").append(std::to_string(extent));
  set_num_threads(1);
  const std::uint64_t hash = bits(one, dtype, shape, channels_last, fused);
  std::printf("%s%s-%s-%s-%s %016llx\n", what, one.name, name(dtype), extents.c_str(), channels_last ? "last" : "first",
              static_cast<unsigned long long>(hash));
  int faults = 0;
  for (const int threads : {2, 3, 5}) {
    set_num_threads(threads);
    if (bits(one, dtype, shape, channels_last, fused) == hash) continue;
    std::fprintf(stderr, "other bits with %d threads than with 1 in the line above\n", threads);
    ++faults;
  }
  return faults;
}

int print_all(const Extents& shape, bool channels_last, DType dtype) {
  int faults = 0;
  for (const Case& one : normalizers(shape)) {
    const bool fuses = one.affine && one.norm.statistic == Statistic::variance;
    faults += print_bits("", forward_bits, one, dtype, shape, channels_last, false);
    if (!one.affine) {
      faults += print_bits("moments-", moments_bits, one, dtype, shape, channels_last, false);
      faults += print_bits("scale-", scale_bits, one, dtype, shape, channels_last, false);
      faults += print_bits("inverse-scale-", scale_bits, one, dtype, shape, channels_last, true);
    }
    if (one.norm.statistic == Statistic::variance && !one.affine) {
      faults += print_bits("weighted-moments-", moments_bits, one, dtype, shape, channels_last, true);
    }
    if (fuses) faults += print_bits("fused-", forward_bits, one, dtype, shape, channels_last, true);
    if (one.affine) faults += print_bits("backward-", backward_bits, one, dtype, shape, channels_last, false);
    if (fuses) faults += print_bits("fused-backward-", backward_bits, one, dtype, shape, channels_last, true);
  }
  return faults;
}

}  // namespace

// --float32: that element type alone, for where all take too long.
int main(int argc, char** argv) {
  // Small and serial; then few statistics over long reductions and many over short ones, in rows and in columns.
  const std::vector<Extents> shapes = {{3, 4},          {5, 130},    {2, 6, 5, 7}, {2, 4, 3, 5, 6},
                                       {2, 200003},     {5003, 40},  {70, 1030},   {2, 4, 180, 181},
                                       {2, 96, 25, 25}, {40, 6, 64}, {70, 6, 3, 3}};
  const bool float32_alone = argc > 1 && std::string_view(argv[1]) == "--float32";
  int faults = 0;
  for (const Extents& shape : shapes) {
    for (const bool channels_last : {false, true}) {
      if (channels_last && shape.size() == 2) continue;
      for (int type = 0; type < (float32_alone ? 1 : dtype_count); ++type) {
        faults += print_all(shape, channels_last, static_cast<DType>(type));
      }
    }
  }
  return faults == 0 ? 0 : 1;
}
