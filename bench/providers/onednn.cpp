// oneDNN behind a C interface: a primitive is made once for given memory, and executed as often as wanted.

#include <omp.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using dnnl::memory;
using dnnl::normalization_flags;
using dnnl::prop_kind;

std::string message;

struct Primitive {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;
  std::vector<int> outputs;  // in the order of the benchmark
  std::vector<float> mean, variance;

  void take(int argument, const memory::desc& layout, void* data) {
    arguments.emplace(argument, memory(layout, engine, data));
  }
};

memory::data_type type_of(const std::string& name) {
  if (name == "float32") return memory::data_type::f32;
  if (name == "bfloat16") return memory::data_type::bf16;
  if (name == "float16") return memory::data_type::f16;
  throw std::runtime_error("no " + name);
}

// What the operation is made of; absent pointers are null.
struct Arrays {
  void *x, *dy, *weight, *bias, *mean, *variance, *y, *dweight, *dbias;
};

void take_all(Primitive& p, const Arrays& a, const memory::desc& data, const memory::desc& statistic,
              const memory::desc& parameter, bool backward) {
  p.take(DNNL_ARG_SRC, data, a.x);
  p.take(DNNL_ARG_SCALE, parameter, a.weight);
  if (a.mean != nullptr) {
    p.take(DNNL_ARG_MEAN, statistic, a.mean);
    p.take(DNNL_ARG_VARIANCE, statistic, a.variance);
  }
  if (backward) {
    p.take(DNNL_ARG_DIFF_DST, data, a.dy);
    p.outputs = {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_SCALE, DNNL_ARG_DIFF_SHIFT};
    p.take(DNNL_ARG_DIFF_SCALE, parameter, a.dweight);
    p.take(DNNL_ARG_DIFF_SHIFT, parameter, a.dbias);
  } else {
    p.outputs = {DNNL_ARG_DST};
    p.take(DNNL_ARG_SHIFT, parameter, a.bias);
  }
  p.take(p.outputs[0], data, a.y);
}

void make_batch(Primitive& p, Arrays a, const std::string& kind, memory::data_type type, memory::format_tag tag,
                const memory::dims& shape, float eps) {
  const memory::desc data{shape, type, tag};
  const memory::desc channel{{shape[1]}, memory::data_type::f32, memory::format_tag::a};
  auto flags = normalization_flags::use_scale | normalization_flags::use_shift;
  const bool backward = kind == "batch_norm_training_backward";
  if (kind == "batch_norm_inference") flags |= normalization_flags::use_global_stats;
  if (kind == "batch_norm_training") {
    p.mean.resize(shape[1]);
    p.variance.resize(shape[1]);
    a.mean = p.mean.data();
    a.variance = p.variance.data();
  }
  const auto direction = kind == "batch_norm_inference" ? prop_kind::forward_inference : prop_kind::forward_training;
  const dnnl::batch_normalization_forward::primitive_desc forward(p.engine, direction, data, data, eps, flags);
  if (backward) {
    p.primitive = dnnl::batch_normalization_backward(dnnl::batch_normalization_backward::primitive_desc(
        p.engine, prop_kind::backward, data, data, data, eps, flags, forward));
  } else {
    p.primitive = dnnl::batch_normalization_forward(forward);
  }
  take_all(p, a, data, channel, channel, backward);
}

void make_layer(Primitive& p, const Arrays& a, const std::string& kind, memory::data_type type,
                const memory::dims& shape, float eps) {
  const memory::desc data{shape, type, memory::format_tag::ab};
  const memory::desc row{{shape[0]}, memory::data_type::f32, memory::format_tag::a};
  const memory::desc parameter{{shape[1]}, memory::data_type::f32, memory::format_tag::a};
  const auto flags = normalization_flags::use_scale | normalization_flags::use_shift;
  const bool backward = kind == "layer_norm_backward";
  const auto direction = backward ? prop_kind::forward_training : prop_kind::forward_inference;
  const dnnl::layer_normalization_forward::primitive_desc forward(p.engine, direction, data, data, row, eps, flags);
  if (backward) {
    p.primitive = dnnl::layer_normalization_backward(dnnl::layer_normalization_backward::primitive_desc(
        p.engine, prop_kind::backward, data, data, data, row, eps, flags, forward));
  } else {
    p.primitive = dnnl::layer_normalization_forward(forward);
  }
  take_all(p, a, data, row, parameter, backward);
  // The gradient does not need the bias; version 3.2 refuses to run without it, as it refuses one in make_batch().
  if (backward) p.take(DNNL_ARG_SHIFT, parameter, a.bias);
}

}  // namespace

extern "C" {

const char* onednn_version() {
  static const auto v = *dnnl_version();
  static const auto text = std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.patch);
  return text.c_str();
}

// Why the last call of onednn_make returned null.
const char* onednn_error() { return message.c_str(); }

void onednn_threads(int threads) { omp_set_num_threads(threads); }

// `shape` is (N, C, H, W) or (N, C), however the data lies; weight, bias and statistics are float.
void* onednn_make(const char* kind, const char* dtype, int channels_last, int rank, const std::int64_t* shape,
                  float eps, const Arrays* arrays) {
  try {
    auto made = std::make_unique<Primitive>();
    const memory::dims dims(shape, shape + rank);
    if (std::string(kind).rfind("batch_norm", 0) == 0) {
      const auto image = channels_last != 0 ? memory::format_tag::nhwc : memory::format_tag::nchw;
      make_batch(*made, *arrays, kind, type_of(dtype), rank == 2 ? memory::format_tag::nc : image, dims, eps);
    } else {
      make_layer(*made, *arrays, kind, type_of(dtype), dims, eps);
    }
    return made.release();
  } catch (const std::exception& error) {
    message = error.what();
    return nullptr;
  }
}

// Into the memory that was given, or, where `outputs` is not null, into that.
int onednn_run(void* made, void* const* outputs) {
  try {
    auto& p = *static_cast<Primitive*>(made);
    for (std::size_t i = 0; outputs != nullptr && i < p.outputs.size(); ++i) {
      p.arguments.at(p.outputs[i]).set_data_handle(outputs[i]);
    }
    p.primitive.execute(p.stream, p.arguments);
    p.stream.wait();
    return 0;
  } catch (const std::exception& error) {
    message = error.what();
    return 1;
  }
}

void onednn_free(void* made) { delete static_cast<Primitive*>(made); }
}
