# The CUDA backend: sets `with_cuda`, and defines what adds it to the library. AUTO goes on without it where there is no
# compiler for it; ON does not.
set(oldest_cuda 12.4)
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  set(default_architectures OFF)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(default_architectures ON)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)  # what all compilers know, until it is known which one this is
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)  # which finds out only when it is used that there is no driver
  enable_language(CUDA)
  # The last of them also as what later ones can translate. `native` would want a GPU on the machine that builds.
  if(default_architectures AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 120)
  endif()
  find_package(CUDAToolkit REQUIRED)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL oldest_cuda)
    set(with_cuda ON)
  endif()
endif()
if(NOT with_cuda)
  if(NOT NORMKIT_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "normkit: NORMKIT_CUDA=${NORMKIT_CUDA} needs nvcc ${oldest_cuda} or later; got "
                        "'${CMAKE_CUDA_COMPILER_VERSION}'; install it, set CUDACXX, or use OFF")
  endif()
  message(STATUS "normkit: no nvcc ${oldest_cuda} or later: built without CUDA")
endif()

function(normkit_add_cuda target)
  target_sources(${target} PRIVATE
    cpp/src/cuda/backend.cu
    cpp/src/cuda/backward.cu
    cpp/src/cuda/forward.cu
    cpp/src/cuda/kernels_backward_bfloat16.cu
    cpp/src/cuda/kernels_backward_float16.cu
    cpp/src/cuda/kernels_backward_float32.cu
    cpp/src/cuda/kernels_backward_float64.cu
    cpp/src/cuda/kernels_forward_bfloat16.cu
    cpp/src/cuda/kernels_forward_float16.cu
    cpp/src/cuda/kernels_forward_float32.cu
    cpp/src/cuda/kernels_forward_float64.cu
    cpp/src/cuda/plan.cpp
    cpp/src/cuda/plan_tiles.cpp
    cpp/src/cuda/runtime.cu)
  # Contraction would make bits depend on the compiler, as on the CPU. Not -iquote, as for the host: nvcc would hand it
  # on unread, and a compiler cache could not tell that it names the checkout.
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
    -fmad=false --expt-relaxed-constexpr -Xptxas=-v
    -I${PROJECT_SOURCE_DIR}/cpp/src -Xcompiler=-Wall,-Wextra,-ffp-contract=off
    $<$<BOOL:${NORMKIT_WERROR}>:-Werror=all-warnings>>)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                                             CUDA_VISIBILITY_PRESET hidden)
  target_link_libraries(${target} PRIVATE CUDA::cudart_static)
endfunction()
