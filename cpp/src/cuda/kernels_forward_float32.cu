#include "cuda/launches.h"

template struct normkit::detail::cuda::ForwardKernels<float>;
