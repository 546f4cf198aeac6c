extern "C" __global__ void __launch_bounds__(256, 2) internal_adjoint1_stage1_kernel(float* arena0_ptr, float* packed_internal_adjoint1_stage1_ptr, float* scratch_internal_adjoint1_0_ptr, int* tables_ptr, int blocks, int step) {
  __shared__ alignas(64) int rows_ptr[128];
  __shared__ alignas(64) float pool_ptr[2736];
  alignas(64) float acc_ptr[4];
  alignas(64) float x_ptr[16];
  alignas(64) float acc_ptr_1[4];
  alignas(64) float x_ptr_1[16];
  alignas(64) float acc_ptr_2[1];
  alignas(64) float x_ptr_2[4];
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  int first = tables_ptr[((steps_at + (step * columns)) + 2)];
  int pointer = tables_ptr[((steps_at + (step * columns)) + 3)];
  int out0 = tables_ptr[((steps_at + (step * columns)) + 4)];
  int base3 = tables_ptr[((steps_at + (step * columns)) + 13)];
  int stride3 = tables_ptr[((steps_at + (step * columns)) + 14)];
  if (n >= 8129) {
    int tiles = max(((n + 63) / 64), 1);
    for (int turn = 0; turn < ((((tiles + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
      int work = (((int)blockIdx.x) + (turn * blocks));
      int chunk = (work / tiles);
      int start = ((work - (chunk * tiles)) * 64);
      if (((int)threadIdx.x) < 64) {
        int position = min((start + ((int)threadIdx.x)), (n - 1));
        rows_ptr[((int)threadIdx.x)] = position;
        int condval;
        if (stride3 < 0) {
          condval = tables_ptr[((index_at + base3) + position)];
        } else {
          condval = (base3 + (position * stride3));
        }
        rows_ptr[(((int)threadIdx.x) + 64)] = condval;
      }
      #pragma unroll
      for (int i = 0; i < 4; ++i) {
        acc_ptr[i] = 0x0p+0f/*0.000000e+00*/;
      }
      tvm_builtin_cuda_cta_sync();
      int to_rows = 0;
      #pragma unroll
      for (int turn_1 = 0; turn_1 < 1; ++turn_1) {
        int piece = ((turn_1 * 256) + ((int)threadIdx.x));
        if (piece < 128) {
          int row = (piece / 2);
          int k = ((piece % 2) * 4);
          edbatch_copy_16((&(pool_ptr[(((row * 12) + to_rows) + k)])), (&(scratch_internal_adjoint1_0_ptr[((rows_ptr[row] * 16) + k)])));
        }
      }
      int to_weights = 2304;
      #pragma unroll
      for (int turn_2 = 0; turn_2 < 1; ++turn_2) {
        int piece_1 = ((turn_2 * 256) + ((int)threadIdx.x));
        if (piece_1 < 32) {
          int part = (piece_1 / 16);
          int q = ((piece_1 % 16) * 4);
          edbatch_copy_16((&(pool_ptr[(((part * 72) + to_weights) + q)])), (&(packed_internal_adjoint1_stage1_ptr[(((chunk * 128) + (part * 64)) + q)])));
        }
      }
      edbatch_commit();
      edbatch_commit();
      edbatch_wait_1();
      tvm_builtin_cuda_cta_sync();
      for (int depth = 0; depth < 1; ++depth) {
        edbatch_commit();
        int across = (((int)threadIdx.x) % 16);
        int along = ((((int)threadIdx.x) / 16) % 16);
        int group = (((int)threadIdx.x) / 256);
        int rows_at = (((depth % 3) * 192) + (along * 12));
        int weights_at = ((2304 + ((depth % 3) * 144)) + (((across / 8) * 72) + (((int)threadIdx.x) % 8)));
        for (int turn_3 = 0; turn_3 < 2; ++turn_3) {
          int k_1 = (turn_3 + group);
          #pragma unroll
          for (int row_1 = 0; row_1 < 4; ++row_1) {
            *(float4*)(x_ptr + (row_1 * 4)) = *(float4*)(pool_ptr + (((row_1 * 12) + (rows_at * 4)) + (k_1 * 4)));
          }
          #pragma unroll
          for (int u = 0; u < 4; ++u) {
            float w = pool_ptr[(((k_1 * 32) + (u * 8)) + weights_at)];
            #pragma unroll
            for (int row_2 = 0; row_2 < 4; ++row_2) {
              acc_ptr[row_2] = (acc_ptr[row_2] + (x_ptr[((row_2 * 4) + u)] * w));
            }
          }
        }
        edbatch_wait_1();
        tvm_builtin_cuda_cta_sync();
      }
      int across_1 = (((int)threadIdx.x) % 16);
      int along_1 = ((((int)threadIdx.x) / 16) % 16);
      int group_1 = (((int)threadIdx.x) / 256);
      #pragma unroll
      for (int e = 0; e < 4; ++e) {
        int row_3 = ((along_1 * 4) + e);
        int column = across_1;
        int instance = (start + row_3);
        int j = ((chunk * 16) + column);
        if ((instance < n) && (j < 8)) {
          float y0 = (acc_ptr[e] + arena0_ptr[((rows_ptr[(row_3 + 64)] * 16) + j)]);
          arena0_ptr[(((out0 * 16) + (instance * 16)) + j)] = y0;
        }
      }
      tvm_builtin_cuda_cta_sync();
    }
  } else {
    if (n >= 5) {
      int tiles_1 = max(((n + 15) / 16), 1);
      for (int turn_4 = 0; turn_4 < ((((tiles_1 + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn_4) {
        int work_1 = (((int)blockIdx.x) + (turn_4 * blocks));
        int chunk_1 = (work_1 / tiles_1);
        int start_1 = ((work_1 - (chunk_1 * tiles_1)) * 16);
        if (((int)threadIdx.x) < 16) {
          int position_1 = min((start_1 + ((int)threadIdx.x)), (n - 1));
          rows_ptr[((int)threadIdx.x)] = position_1;
          int condval_1;
          if (stride3 < 0) {
            condval_1 = tables_ptr[((index_at + base3) + position_1)];
          } else {
            condval_1 = (base3 + (position_1 * stride3));
          }
          rows_ptr[(((int)threadIdx.x) + 16)] = condval_1;
        }
        #pragma unroll
        for (int i_1 = 0; i_1 < 4; ++i_1) {
          acc_ptr_1[i_1] = 0x0p+0f/*0.000000e+00*/;
        }
        tvm_builtin_cuda_cta_sync();
        int to_rows_1 = 0;
        #pragma unroll
        for (int turn_5 = 0; turn_5 < 1; ++turn_5) {
          int piece_2 = ((turn_5 * 256) + ((int)threadIdx.x));
          if (piece_2 < 64) {
            int row_4 = (piece_2 / 4);
            int k_2 = ((piece_2 % 4) * 4);
            #pragma unroll
            for (int u_1 = 0; u_1 < 4; ++u_1) {
              float condval_2;
              if ((k_2 + u_1) < 8) {
                condval_2 = scratch_internal_adjoint1_0_ptr[(((rows_ptr[row_4] * 16) + k_2) + u_1)];
              } else {
                condval_2 = 0x0p+0f/*0.000000e+00*/;
              }
              pool_ptr[((((row_4 * 20) + to_rows_1) + k_2) + u_1)] = condval_2;
            }
          }
        }
        int to_weights_1 = 960;
        #pragma unroll
        for (int turn_6 = 0; turn_6 < 1; ++turn_6) {
          int piece_3 = ((turn_6 * 256) + ((int)threadIdx.x));
          if (piece_3 < 64) {
            int part_1 = (piece_3 / 32);
            int q_1 = ((piece_3 % 32) * 4);
            if (q_1 < 64) {
              edbatch_copy_16((&(pool_ptr[(((part_1 * 136) + to_weights_1) + q_1)])), (&(packed_internal_adjoint1_stage1_ptr[(((chunk_1 * 128) + (part_1 * 64)) + q_1)])));
            } else {
              #pragma unroll
              for (int u_2 = 0; u_2 < 4; ++u_2) {
                pool_ptr[((((part_1 * 136) + to_weights_1) + q_1) + u_2)] = 0x0p+0f/*0.000000e+00*/;
              }
            }
          }
        }
        edbatch_commit();
        edbatch_commit();
        edbatch_wait_1();
        tvm_builtin_cuda_cta_sync();
        for (int depth_1 = 0; depth_1 < 1; ++depth_1) {
          edbatch_commit();
          int across_2 = (((int)threadIdx.x) % 16);
          int along_2 = ((((int)threadIdx.x) / 16) % 4);
          int group_2 = (((int)threadIdx.x) / 64);
          int rows_at_1 = (((depth_1 % 3) * 80) + (along_2 * 20));
          int weights_at_1 = ((960 + ((depth_1 % 3) * 272)) + (((across_2 / 8) * 136) + (((int)threadIdx.x) % 8)));
          for (int turn_7 = 0; turn_7 < 1; ++turn_7) {
            int k_3 = ((turn_7 * 4) + group_2);
            #pragma unroll
            for (int row_5 = 0; row_5 < 4; ++row_5) {
              *(float4*)(x_ptr_1 + (row_5 * 4)) = *(float4*)(pool_ptr + (((row_5 * 20) + (rows_at_1 * 4)) + (k_3 * 4)));
            }
            #pragma unroll
            for (int u_3 = 0; u_3 < 4; ++u_3) {
              float w_1 = pool_ptr[(((k_3 * 32) + (u_3 * 8)) + weights_at_1)];
              #pragma unroll
              for (int row_6 = 0; row_6 < 4; ++row_6) {
                acc_ptr_1[row_6] = (acc_ptr_1[row_6] + (x_ptr_1[((row_6 * 4) + u_3)] * w_1));
              }
            }
          }
          edbatch_wait_1();
          tvm_builtin_cuda_cta_sync();
        }
        int across_3 = (((int)threadIdx.x) % 16);
        int along_3 = ((((int)threadIdx.x) / 16) % 4);
        int group_3 = (((int)threadIdx.x) / 64);
        #pragma unroll
        for (int e_1 = 0; e_1 < 4; ++e_1) {
          int row_7 = ((along_3 * 4) + e_1);
          int column_1 = across_3;
          pool_ptr[(((group_3 * 256) + (row_7 * 16)) + column_1)] = acc_ptr_1[e_1];
        }
        tvm_builtin_cuda_cta_sync();
        if (((int)threadIdx.x) < 256) {
          float sum0 = (((pool_ptr[((int)threadIdx.x)] + pool_ptr[(((int)threadIdx.x) + 256)]) + pool_ptr[(((int)threadIdx.x) + 512)]) + pool_ptr[(((int)threadIdx.x) + 768)]);
          int instance_1 = (start_1 + (((int)threadIdx.x) / 16));
          int j_1 = ((chunk_1 * 16) + (((int)threadIdx.x) % 16));
          if ((instance_1 < n) && (j_1 < 8)) {
            float y0_1 = (sum0 + arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 16)] * 16) + j_1)]);
            arena0_ptr[(((out0 * 16) + (instance_1 * 16)) + j_1)] = y0_1;
          }
        }
        tvm_builtin_cuda_cta_sync();
      }
    } else {
      int tiles_2 = max(((n + 3) / 4), 1);
      for (int turn_8 = 0; turn_8 < ((((tiles_2 + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn_8) {
        int work_2 = (((int)blockIdx.x) + (turn_8 * blocks));
        int chunk_2 = (work_2 / tiles_2);
        int start_2 = ((work_2 - (chunk_2 * tiles_2)) * 4);
        if (((int)threadIdx.x) < 4) {
          int position_2 = min((start_2 + ((int)threadIdx.x)), (n - 1));
          rows_ptr[((int)threadIdx.x)] = position_2;
          int condval_3;
          if (stride3 < 0) {
            condval_3 = tables_ptr[((index_at + base3) + position_2)];
          } else {
            condval_3 = (base3 + (position_2 * stride3));
          }
          rows_ptr[(((int)threadIdx.x) + 4)] = condval_3;
        }
        #pragma unroll
        for (int i_2 = 0; i_2 < 1; ++i_2) {
          acc_ptr_2[i_2] = 0x0p+0f/*0.000000e+00*/;
        }
        tvm_builtin_cuda_cta_sync();
        int to_rows_2 = 0;
        #pragma unroll
        for (int turn_9 = 0; turn_9 < 1; ++turn_9) {
          int piece_4 = ((turn_9 * 256) + ((int)threadIdx.x));
          if (piece_4 < 16) {
            int row_8 = (piece_4 / 4);
            int k_4 = ((piece_4 % 4) * 4);
            #pragma unroll
            for (int u_4 = 0; u_4 < 4; ++u_4) {
              float condval_4;
              if ((k_4 + u_4) < 8) {
                condval_4 = scratch_internal_adjoint1_0_ptr[(((rows_ptr[row_8] * 16) + k_4) + u_4)];
              } else {
                condval_4 = 0x0p+0f/*0.000000e+00*/;
              }
              pool_ptr[((((row_8 * 20) + to_rows_2) + k_4) + u_4)] = condval_4;
            }
          }
        }
        int to_weights_2 = 240;
        #pragma unroll
        for (int turn_10 = 0; turn_10 < 1; ++turn_10) {
          int piece_5 = ((turn_10 * 256) + ((int)threadIdx.x));
          if (piece_5 < 64) {
            int part_2 = (piece_5 / 32);
            int q_2 = ((piece_5 % 32) * 4);
            if (q_2 < 64) {
              edbatch_copy_16((&(pool_ptr[(((part_2 * 136) + to_weights_2) + q_2)])), (&(packed_internal_adjoint1_stage1_ptr[(((chunk_2 * 128) + (part_2 * 64)) + q_2)])));
            } else {
              #pragma unroll
              for (int u_5 = 0; u_5 < 4; ++u_5) {
                pool_ptr[((((part_2 * 136) + to_weights_2) + q_2) + u_5)] = 0x0p+0f/*0.000000e+00*/;
              }
            }
          }
        }
        edbatch_commit();
        edbatch_commit();
        edbatch_wait_1();
        tvm_builtin_cuda_cta_sync();
        for (int depth_2 = 0; depth_2 < 1; ++depth_2) {
          edbatch_commit();
          int across_4 = (((int)threadIdx.x) % 16);
          int along_4 = ((((int)threadIdx.x) / 16) % 4);
          int group_4 = (((int)threadIdx.x) / 64);
          int rows_at_2 = (((depth_2 % 3) * 20) + (along_4 * 5));
          int weights_at_2 = ((240 + ((depth_2 % 3) * 272)) + (((across_4 / 8) * 136) + (((int)threadIdx.x) % 8)));
          for (int turn_11 = 0; turn_11 < 1; ++turn_11) {
            int k_5 = ((turn_11 * 4) + group_4);
            #pragma unroll
            for (int row_9 = 0; row_9 < 1; ++row_9) {
              *(float4*)(x_ptr_2 + (row_9 * 4)) = *(float4*)(pool_ptr + (((row_9 * 20) + (rows_at_2 * 4)) + (k_5 * 4)));
            }
            #pragma unroll
            for (int u_6 = 0; u_6 < 4; ++u_6) {
              float w_2 = pool_ptr[(((k_5 * 32) + (u_6 * 8)) + weights_at_2)];
              #pragma unroll
              for (int row_10 = 0; row_10 < 1; ++row_10) {
                acc_ptr_2[row_10] = (acc_ptr_2[row_10] + (x_ptr_2[((row_10 * 4) + u_6)] * w_2));
              }
            }
          }
          edbatch_wait_1();
          tvm_builtin_cuda_cta_sync();
        }
        int across_5 = (((int)threadIdx.x) % 16);
        int along_5 = ((((int)threadIdx.x) / 16) % 4);
        int group_5 = (((int)threadIdx.x) / 64);
        #pragma unroll
        for (int e_2 = 0; e_2 < 1; ++e_2) {
          int row_11 = (along_5 + e_2);
          int column_2 = across_5;
          pool_ptr[(((group_5 * 64) + (row_11 * 16)) + column_2)] = acc_ptr_2[e_2];
        }
        tvm_builtin_cuda_cta_sync();
        if (((int)threadIdx.x) < 64) {
          float sum0_1 = (((pool_ptr[((int)threadIdx.x)] + pool_ptr[(((int)threadIdx.x) + 64)]) + pool_ptr[(((int)threadIdx.x) + 128)]) + pool_ptr[(((int)threadIdx.x) + 192)]);
          int instance_2 = (start_2 + (((int)threadIdx.x) / 16));
          int j_2 = ((chunk_2 * 16) + (((int)threadIdx.x) % 16));
          if ((instance_2 < n) && (j_2 < 8)) {
            float y0_2 = (sum0_1 + arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 4)] * 16) + j_2)]);
            arena0_ptr[(((out0 * 16) + (instance_2 * 16)) + j_2)] = y0_2;
          }
        }
        tvm_builtin_cuda_cta_sync();
      }
    }
  }
}
