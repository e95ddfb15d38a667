// The only switch over element types.
#pragma once

#include <normkit/tensor.h>

#include "half.h"

namespace normkit::detail {

/// What data of `dtype` are computed in.
constexpr DType work_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

template <class T>
struct StorageTag {
  using Storage = T;
};

/// Calls visit(StorageTag<T>{}) with the storage type of `dtype`.
template <class Visit>
decltype(auto) visit_storage(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::float64: return visit(StorageTag<double>{});
    case DType::float16: return visit(StorageTag<Float16>{});
    case DType::bfloat16: return visit(StorageTag<BFloat16>{});
    default: return visit(StorageTag<float>{});
  }
}

}  // namespace normkit::detail
