// Everything of normkit.
#pragma once

#include <normkit/cuda.h>
#include <normkit/fold.h>
#include <normkit/moments.h>
#include <normkit/norm.h>
#include <normkit/runtime.h>
#include <normkit/tensor.h>

#define NORMKIT_VERSION "0.1.0"
