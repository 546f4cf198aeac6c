extern "C" __global__ void __launch_bounds__(256, 2) internal_kernel(float* arena0_ptr, float* arena1_ptr, int* tables_ptr, float* weight_W_M_ptr, float* weight_W_v_ptr, float* weight_b_ptr, float* weight_b_M_ptr, float* workspace_float32_ptr, int blocks, int step) {
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  for (int turn = 0; turn < ((((n + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int instance = (((int)blockIdx.x) + (turn * blocks));
    int base = tables_ptr[((steps_at + (step * columns)) + 6)];
    int stride = tables_ptr[((steps_at + (step * columns)) + 7)];
    int condval;
    if (stride < 0) {
      condval = tables_ptr[((index_at + base) + instance)];
    } else {
      condval = (base + (instance * stride));
    }
    int row = condval;
    int base_1 = tables_ptr[((steps_at + (step * columns)) + 8)];
    int stride_1 = tables_ptr[((steps_at + (step * columns)) + 9)];
    int condval_1;
    if (stride_1 < 0) {
      condval_1 = tables_ptr[((index_at + base_1) + instance)];
    } else {
      condval_1 = (base_1 + (instance * stride_1));
    }
    int row_1 = condval_1;
    int base_2 = tables_ptr[((steps_at + (step * columns)) + 10)];
    int stride_2 = tables_ptr[((steps_at + (step * columns)) + 11)];
    int condval_2;
    if (stride_2 < 0) {
      condval_2 = tables_ptr[((index_at + base_2) + instance)];
    } else {
      condval_2 = (base_2 + (instance * stride_2));
    }
    int row_2 = condval_2;
    int base_3 = tables_ptr[((steps_at + (step * columns)) + 12)];
    int stride_3 = tables_ptr[((steps_at + (step * columns)) + 13)];
    int condval_3;
    if (stride_3 < 0) {
      condval_3 = tables_ptr[((index_at + base_3) + instance)];
    } else {
      condval_3 = (base_3 + (instance * stride_3));
    }
    int row_3 = condval_3;
    int row_4 = (tables_ptr[((steps_at + (step * columns)) + 4)] + instance);
    int row_5 = (tables_ptr[((steps_at + (step * columns)) + 5)] + instance);
    int at_matmul_intermediate = (((int)blockIdx.x) * tables_ptr[4]);
    int at_matmul_intermediate_1 = (at_matmul_intermediate + 8);
    int at_T_concat_intermediate = (at_matmul_intermediate_1 + 8);
    int at_matmul_intermediate_1_2 = (at_T_concat_intermediate + 16);
    int at_T_add_intermediate = (at_matmul_intermediate_1_2 + 8);
    int at_T_concat_intermediate_1 = (at_T_add_intermediate + 8);
    int at_matmul_intermediate_1_2_3 = (at_T_concat_intermediate_1 + 128);
    int extent = 8;
    for (int turn_1 = 0; turn_1 < ((extent + 255) / 256); ++turn_1) {
      int at = ((turn_1 * 256) + ((int)threadIdx.x));
      if (at < extent) {
        workspace_float32_ptr[(at_matmul_intermediate + at)] = 0x0p+0f/*0.000000e+00*/;
        for (int k = 0; k < 8; ++k) {
          workspace_float32_ptr[(at_matmul_intermediate + at)] = (workspace_float32_ptr[(at_matmul_intermediate + at)] + (arena1_ptr[(((row_1 * 64) + (at * 8)) + k)] * arena0_ptr[((row_2 * 16) + k)]));
        }
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_1 = 8;
    for (int turn_2 = 0; turn_2 < ((extent_1 + 255) / 256); ++turn_2) {
      int at_1 = ((turn_2 * 256) + ((int)threadIdx.x));
      if (at_1 < extent_1) {
        workspace_float32_ptr[(at_matmul_intermediate_1 + at_1)] = 0x0p+0f/*0.000000e+00*/;
        for (int k_1 = 0; k_1 < 8; ++k_1) {
          workspace_float32_ptr[(at_matmul_intermediate_1 + at_1)] = (workspace_float32_ptr[(at_matmul_intermediate_1 + at_1)] + (arena1_ptr[(((row_3 * 64) + (at_1 * 8)) + k_1)] * arena0_ptr[((row * 16) + k_1)]));
        }
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_2 = 16;
    for (int turn_3 = 0; turn_3 < ((extent_2 + 255) / 256); ++turn_3) {
      int at_2 = ((turn_3 * 256) + ((int)threadIdx.x));
      if (at_2 < extent_2) {
        float condval_4;
        if (8 <= at_2) {
          condval_4 = workspace_float32_ptr[(at_matmul_intermediate_1 + ((int)(((int64_t)at_2) - (int64_t)8)))];
        } else {
          condval_4 = workspace_float32_ptr[(at_matmul_intermediate + at_2)];
        }
        workspace_float32_ptr[(at_T_concat_intermediate + at_2)] = condval_4;
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_3 = 8;
    for (int turn_4 = 0; turn_4 < ((extent_3 + 255) / 256); ++turn_4) {
      int at_3 = ((turn_4 * 256) + ((int)threadIdx.x));
      if (at_3 < extent_3) {
        workspace_float32_ptr[(at_matmul_intermediate_1_2 + at_3)] = 0x0p+0f/*0.000000e+00*/;
        for (int64_t k_2 = (int64_t)0; k_2 < (int64_t)16; ++k_2) {
          workspace_float32_ptr[(at_matmul_intermediate_1_2 + at_3)] = (workspace_float32_ptr[(at_matmul_intermediate_1_2 + at_3)] + (workspace_float32_ptr[(at_T_concat_intermediate + ((int)k_2))] * weight_W_v_ptr[((k_2 * (int64_t)8) + ((int64_t)at_3))]));
        }
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_4 = 8;
    for (int turn_5 = 0; turn_5 < ((extent_4 + 255) / 256); ++turn_5) {
      int at_4 = ((turn_5 * 256) + ((int)threadIdx.x));
      if (at_4 < extent_4) {
        workspace_float32_ptr[(at_T_add_intermediate + at_4)] = (workspace_float32_ptr[(at_matmul_intermediate_1_2 + at_4)] + weight_b_ptr[at_4]);
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_5 = 8;
    for (int turn_6 = 0; turn_6 < ((extent_5 + 255) / 256); ++turn_6) {
      int at_5 = ((turn_6 * 256) + ((int)threadIdx.x));
      if (at_5 < extent_5) {
        arena0_ptr[((row_4 * 16) + at_5)] = tanhf(workspace_float32_ptr[(at_T_add_intermediate + at_5)]);
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_6 = 128;
    for (int turn_7 = 0; turn_7 < ((extent_6 + 255) / 256); ++turn_7) {
      int at_6 = ((turn_7 * 256) + ((int)threadIdx.x));
      if (at_6 < extent_6) {
        float condval_5;
        if (8 <= (at_6 >> 3)) {
          condval_5 = arena1_ptr[(((row_3 * 64) + at_6) - 64)];
        } else {
          condval_5 = arena1_ptr[((row_1 * 64) + at_6)];
        }
        workspace_float32_ptr[(at_6 + at_T_concat_intermediate_1)] = condval_5;
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_7 = 64;
    for (int turn_8 = 0; turn_8 < ((extent_7 + 255) / 256); ++turn_8) {
      int at_7 = ((turn_8 * 256) + ((int)threadIdx.x));
      if (at_7 < extent_7) {
        workspace_float32_ptr[(at_7 + at_matmul_intermediate_1_2_3)] = 0x0p+0f/*0.000000e+00*/;
        for (int64_t k_3 = (int64_t)0; k_3 < (int64_t)16; ++k_3) {
          workspace_float32_ptr[(at_7 + at_matmul_intermediate_1_2_3)] = (workspace_float32_ptr[(at_7 + at_matmul_intermediate_1_2_3)] + (weight_W_M_ptr[(((((int64_t)at_7) >> (int64_t)3) * (int64_t)16) + k_3)] * workspace_float32_ptr[(((((int)k_3) * 8) + at_T_concat_intermediate_1) + (at_7 & 7))]));
        }
      }
    }
    tvm_builtin_cuda_cta_sync();
    int extent_8 = 64;
    for (int turn_9 = 0; turn_9 < ((extent_8 + 255) / 256); ++turn_9) {
      int at_8 = ((turn_9 * 256) + ((int)threadIdx.x));
      if (at_8 < extent_8) {
        arena1_ptr[((row_5 * 64) + at_8)] = (workspace_float32_ptr[(at_8 + at_matmul_intermediate_1_2_3)] + weight_b_M_ptr[at_8]);
      }
    }
    tvm_builtin_cuda_cta_sync();
  }
}
