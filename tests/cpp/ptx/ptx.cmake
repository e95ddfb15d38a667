# The CUDA backend as nvcc compiles it, up to the assembler: its PTX, translated into C++ and run by the host. No GPU is
# needed, but nvcc, and Python to translate with.
find_program(NORMKIT_NVCC nvcc DOC "Compiler of the PTX that ptx_tests runs")
if(NOT NORMKIT_NVCC)
  return()
endif()
find_package(Python REQUIRED COMPONENTS Interpreter)

set(ptx ${CMAKE_CURRENT_LIST_DIR})
set(nvcc ${NORMKIT_NVCC} -std=c++20 -O3 -DNDEBUG -fmad=false --expt-relaxed-constexpr -arch=compute_90
    -I${PROJECT_SOURCE_DIR}/cpp/src -I${PROJECT_SOURCE_DIR}/cpp/include)
set(translated "")
foreach(source ${emulated_kernels})
  cmake_path(GET source STEM stem)
  set(stem ${CMAKE_CURRENT_BINARY_DIR}/${stem})
  set(parts ${stem}_0.cpp ${stem}_1.cpp ${stem}_2.cpp ${stem}_3.cpp)  # to be compiled one beside the other
  add_custom_command(
    OUTPUT ${parts}
    COMMAND ${nvcc} -MD -MF ${stem}.d -ptx -o ${stem}.ptx ${source}
    COMMAND Python::Interpreter ${ptx}/translate.py ${stem}.ptx ${parts}
    DEPENDS ${source} ${ptx}/translate.py ${ptx}/instructions.py
    VERBATIM)
  list(APPEND translated ${parts})
endforeach()

normkit_add_emulation(normkit_ptx_cuda)
target_compile_options(normkit_ptx_cuda BEFORE PRIVATE -iquote${ptx})  # where another launch.h is
target_sources(normkit_ptx_cuda PRIVATE ${translated} ${ptx}/cluster.cpp ${ptx}/machine.cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(fused_multiply_add -mfma)  # or else each is the call of a function
endif()
set_source_files_properties(${translated} PROPERTIES COMPILE_OPTIONS "-w;${fused_multiply_add}")
