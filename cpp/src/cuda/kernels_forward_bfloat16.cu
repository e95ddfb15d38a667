#include "cuda/launches.h"

template struct normkit::detail::cuda::ForwardKernels<normkit::detail::BFloat16>;
