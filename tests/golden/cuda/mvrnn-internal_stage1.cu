extern "C" __global__ void __launch_bounds__(256, 2) internal_stage1_kernel(float* arena1_ptr, float* packed_internal_stage1_ptr, int* tables_ptr, int blocks, int step) {
  __shared__ alignas(64) float pool_ptr[4736];
  alignas(64) float acc_ptr[16];
  alignas(64) float x_ptr[16];
  alignas(64) float y_ptr[4];
  alignas(64) float x_ptr_1[16];
  alignas(64) float y_ptr_1[4];
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  int first = tables_ptr[((steps_at + (step * columns)) + 2)];
  int pointer = tables_ptr[((steps_at + (step * columns)) + 3)];
  int out1 = tables_ptr[((steps_at + (step * columns)) + 5)];
  int base1 = tables_ptr[((steps_at + (step * columns)) + 8)];
  int stride1 = tables_ptr[((steps_at + (step * columns)) + 9)];
  int base3 = tables_ptr[((steps_at + (step * columns)) + 12)];
  int stride3 = tables_ptr[((steps_at + (step * columns)) + 13)];
  for (int turn = 0; turn < ((((n + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int work = (((int)blockIdx.x) + (turn * blocks));
    int instance = work;
    int piece_of_instance = (work - instance);
    int condval;
    if (stride1 < 0) {
      condval = tables_ptr[((index_at + base1) + instance)];
    } else {
      condval = (base1 + (instance * stride1));
    }
    int row = condval;
    int condval_1;
    if (stride3 < 0) {
      condval_1 = tables_ptr[((index_at + base3) + instance)];
    } else {
      condval_1 = (base3 + (instance * stride3));
    }
    int row_1 = condval_1;
    int first_i = (piece_of_instance * 64);
    int first_j = 0;
    #pragma unroll
    for (int e = 0; e < 16; ++e) {
      acc_ptr[e] = 0x0p+0f/*0.000000e+00*/;
    }
    tvm_builtin_cuda_cta_sync();
    #pragma unroll
    for (int turn_1 = 0; turn_1 < 1; ++turn_1) {
      int piece = ((turn_1 * 256) + ((int)threadIdx.x));
      int row_2 = (piece / 4);
      int k = ((piece % 4) * 4);
      #pragma unroll
      for (int u = 0; u < 4; ++u) {
        float condval_2;
        if (((first_i + row_2) < 8) && ((k + u) < 8)) {
          condval_2 = packed_internal_stage1_ptr[(((((first_i * 8) + (row_2 * 8)) + k) + u) + 64)];
        } else {
          condval_2 = 0x0p+0f/*0.000000e+00*/;
        }
        pool_ptr[(((row_2 * 20) + k) + u)] = condval_2;
      }
    }
    #pragma unroll
    for (int turn_2 = 0; turn_2 < 1; ++turn_2) {
      int piece_1 = ((turn_2 * 256) + ((int)threadIdx.x));
      int row_3 = (piece_1 / 16);
      int column = ((piece_1 % 16) * 4);
      #pragma unroll
      for (int u_1 = 0; u_1 < 4; ++u_1) {
        float condval_3;
        if ((row_3 < 8) && (((first_j + column) + u_1) < 8)) {
          condval_3 = arena1_ptr[(((((row * 64) + (row_3 * 8)) + first_j) + column) + u_1)];
        } else {
          condval_3 = 0x0p+0f/*0.000000e+00*/;
        }
        pool_ptr[((((row_3 * 68) + column) + u_1) + 2560)] = condval_3;
      }
    }
    edbatch_commit();
    edbatch_wait_0();
    tvm_builtin_cuda_cta_sync();
    for (int depth = 0; depth < 1; ++depth) {
      edbatch_commit();
      int left = (((depth % 2) * 320) + ((((int)threadIdx.x) / 16) * 20));
      int right = ((640 + ((depth % 2) * 272)) + (((int)threadIdx.x) % 16));
      for (int k_1 = 0; k_1 < 4; ++k_1) {
        #pragma unroll
        for (int m = 0; m < 4; ++m) {
          *(float4*)(x_ptr + (m * 4)) = *(float4*)(pool_ptr + (((m * 20) + (left * 4)) + (k_1 * 4)));
        }
        #pragma unroll
        for (int u_2 = 0; u_2 < 4; ++u_2) {
          *(float4*)(y_ptr + 0) = *(float4*)(pool_ptr + (((k_1 * 272) + (u_2 * 68)) + (right * 4)));
          #pragma unroll
          for (int m_1 = 0; m_1 < 4; ++m_1) {
            #pragma unroll
            for (int c = 0; c < 4; ++c) {
              acc_ptr[((m_1 * 4) + c)] = (acc_ptr[((m_1 * 4) + c)] + (x_ptr[((m_1 * 4) + u_2)] * y_ptr[c]));
            }
          }
        }
      }
      edbatch_wait_0();
      tvm_builtin_cuda_cta_sync();
    }
    #pragma unroll
    for (int turn_3 = 0; turn_3 < 1; ++turn_3) {
      int piece_2 = ((turn_3 * 256) + ((int)threadIdx.x));
      int row_4 = (piece_2 / 4);
      int k_2 = ((piece_2 % 4) * 4);
      #pragma unroll
      for (int u_3 = 0; u_3 < 4; ++u_3) {
        float condval_4;
        if (((first_i + row_4) < 8) && ((k_2 + u_3) < 8)) {
          condval_4 = packed_internal_stage1_ptr[(((((first_i * 8) + (row_4 * 8)) + k_2) + u_3) + 128)];
        } else {
          condval_4 = 0x0p+0f/*0.000000e+00*/;
        }
        pool_ptr[(((row_4 * 20) + k_2) + u_3)] = condval_4;
      }
    }
    #pragma unroll
    for (int turn_4 = 0; turn_4 < 1; ++turn_4) {
      int piece_3 = ((turn_4 * 256) + ((int)threadIdx.x));
      int row_5 = (piece_3 / 16);
      int column_1 = ((piece_3 % 16) * 4);
      #pragma unroll
      for (int u_4 = 0; u_4 < 4; ++u_4) {
        float condval_5;
        if ((row_5 < 8) && (((first_j + column_1) + u_4) < 8)) {
          condval_5 = arena1_ptr[(((((row_1 * 64) + (row_5 * 8)) + first_j) + column_1) + u_4)];
        } else {
          condval_5 = 0x0p+0f/*0.000000e+00*/;
        }
        pool_ptr[((((row_5 * 68) + column_1) + u_4) + 2560)] = condval_5;
      }
    }
    edbatch_commit();
    edbatch_wait_0();
    tvm_builtin_cuda_cta_sync();
    for (int depth_1 = 0; depth_1 < 1; ++depth_1) {
      edbatch_commit();
      int left_1 = (((depth_1 % 2) * 320) + ((((int)threadIdx.x) / 16) * 20));
      int right_1 = ((640 + ((depth_1 % 2) * 272)) + (((int)threadIdx.x) % 16));
      for (int k_3 = 0; k_3 < 4; ++k_3) {
        #pragma unroll
        for (int m_2 = 0; m_2 < 4; ++m_2) {
          *(float4*)(x_ptr_1 + (m_2 * 4)) = *(float4*)(pool_ptr + (((m_2 * 20) + (left_1 * 4)) + (k_3 * 4)));
        }
        #pragma unroll
        for (int u_5 = 0; u_5 < 4; ++u_5) {
          *(float4*)(y_ptr_1 + 0) = *(float4*)(pool_ptr + (((k_3 * 272) + (u_5 * 68)) + (right_1 * 4)));
          #pragma unroll
          for (int m_3 = 0; m_3 < 4; ++m_3) {
            #pragma unroll
            for (int c_1 = 0; c_1 < 4; ++c_1) {
              acc_ptr[((m_3 * 4) + c_1)] = (acc_ptr[((m_3 * 4) + c_1)] + (x_ptr_1[((m_3 * 4) + u_5)] * y_ptr_1[c_1]));
            }
          }
        }
      }
      edbatch_wait_0();
      tvm_builtin_cuda_cta_sync();
    }
    #pragma unroll
    for (int e_1 = 0; e_1 < 16; ++e_1) {
      int i = ((first_i + ((((int)threadIdx.x) / 16) * 4)) + (e_1 / 4));
      int j = ((first_j + ((((int)threadIdx.x) % 16) * 4)) + (e_1 % 4));
      if ((i < 8) && (j < 8)) {
        float y0 = (acc_ptr[e_1] + packed_internal_stage1_ptr[((i * 8) + j)]);
        arena1_ptr[((((out1 * 64) + (instance * 64)) + (i * 8)) + j)] = y0;
      }
    }
    tvm_builtin_cuda_cta_sync();
  }
}
