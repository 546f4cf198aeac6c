extern "C" __global__ void __launch_bounds__(256, 2) readout_stage0_kernel(float* arena0_ptr, float* arena1_ptr, float* packed_readout_stage0_ptr, int* tables_ptr, int blocks, int step) {
  __shared__ alignas(64) int rows_ptr[64];
  __shared__ alignas(64) float pool_ptr[7104];
  alignas(64) float acc_ptr[16];
  alignas(64) float x_ptr[16];
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  int first = tables_ptr[((steps_at + (step * columns)) + 2)];
  int pointer = tables_ptr[((steps_at + (step * columns)) + 3)];
  int out0 = tables_ptr[((steps_at + (step * columns)) + 4)];
  int base0 = tables_ptr[((steps_at + (step * columns)) + 5)];
  int stride0 = tables_ptr[((steps_at + (step * columns)) + 6)];
  int tiles = max(((n + 63) / 64), 1);
  for (int turn = 0; turn < (((((tiles * 4) + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int work = (((int)blockIdx.x) + (turn * blocks));
    int chunk = (work / tiles);
    int start = ((work - (chunk * tiles)) * 64);
    if (((int)threadIdx.x) < 64) {
      int position = min((start + ((int)threadIdx.x)), (n - 1));
      int condval;
      if (stride0 < 0) {
        condval = tables_ptr[((index_at + base0) + position)];
      } else {
        condval = (base0 + (position * stride0));
      }
      rows_ptr[((int)threadIdx.x)] = condval;
    }
    #pragma unroll
    for (int i = 0; i < 16; ++i) {
      acc_ptr[i] = 0x0p+0f/*0.000000e+00*/;
    }
    tvm_builtin_cuda_cta_sync();
    int to_rows = 0;
    #pragma unroll
    for (int turn_1 = 0; turn_1 < 1; ++turn_1) {
      int piece = ((turn_1 * 256) + ((int)threadIdx.x));
      int row = (piece / 4);
      int k = ((piece % 4) * 4);
      edbatch_copy_16((&(pool_ptr[(((row * 20) + to_rows) + k)])), (&(arena0_ptr[((rows_ptr[row] * 32) + k)])));
    }
    int to_weights = 3840;
    #pragma unroll
    for (int turn_2 = 0; turn_2 < 1; ++turn_2) {
      int piece_1 = ((turn_2 * 256) + ((int)threadIdx.x));
      int part = (piece_1 / 32);
      int q = ((piece_1 % 32) * 4);
      edbatch_copy_16((&(pool_ptr[(((part * 136) + to_weights) + q)])), (&(packed_readout_stage0_ptr[(((chunk * 2112) + (part * 264)) + q)])));
    }
    edbatch_commit();
    int to_rows_1 = 1280;
    #pragma unroll
    for (int turn_3 = 0; turn_3 < 1; ++turn_3) {
      int piece_2 = ((turn_3 * 256) + ((int)threadIdx.x));
      int row_1 = (piece_2 / 4);
      int k_1 = ((piece_2 % 4) * 4);
      edbatch_copy_16((&(pool_ptr[(((row_1 * 20) + to_rows_1) + k_1)])), (&(arena0_ptr[(((rows_ptr[row_1] * 32) + k_1) + 16)])));
    }
    int to_weights_1 = 4928;
    #pragma unroll
    for (int turn_4 = 0; turn_4 < 1; ++turn_4) {
      int piece_3 = ((turn_4 * 256) + ((int)threadIdx.x));
      int part_1 = (piece_3 / 32);
      int q_1 = ((piece_3 % 32) * 4);
      edbatch_copy_16((&(pool_ptr[(((part_1 * 136) + to_weights_1) + q_1)])), (&(packed_readout_stage0_ptr[((((chunk * 2112) + (part_1 * 264)) + q_1) + 128)])));
    }
    edbatch_commit();
    edbatch_wait_1();
    tvm_builtin_cuda_cta_sync();
    for (int depth = 0; depth < 2; ++depth) {
      edbatch_commit();
      int across = (((int)threadIdx.x) % 16);
      int along = ((((int)threadIdx.x) / 16) % 16);
      int group = (((int)threadIdx.x) / 256);
      int rows_at = (((depth % 3) * 320) + (along * 20));
      int weights_at = ((3840 + ((depth % 3) * 1088)) + (((across / 8) * 136) + (((int)threadIdx.x) % 8)));
      for (int turn_5 = 0; turn_5 < 4; ++turn_5) {
        int k_2 = (turn_5 + group);
        #pragma unroll
        for (int row_2 = 0; row_2 < 4; ++row_2) {
          *(float4*)(x_ptr + (row_2 * 4)) = *(float4*)(pool_ptr + (((row_2 * 20) + (rows_at * 4)) + (k_2 * 4)));
        }
        #pragma unroll
        for (int u = 0; u < 4; ++u) {
          float w = pool_ptr[(((k_2 * 32) + (u * 8)) + weights_at)];
          #pragma unroll
          for (int row_3 = 0; row_3 < 4; ++row_3) {
            acc_ptr[(row_3 * 4)] = (acc_ptr[(row_3 * 4)] + (x_ptr[((row_3 * 4) + u)] * w));
          }
          float w_1 = pool_ptr[((((k_2 * 32) + (u * 8)) + weights_at) + 272)];
          #pragma unroll
          for (int row_4 = 0; row_4 < 4; ++row_4) {
            acc_ptr[((row_4 * 4) + 1)] = (acc_ptr[((row_4 * 4) + 1)] + (x_ptr[((row_4 * 4) + u)] * w_1));
          }
          float w_2 = pool_ptr[((((k_2 * 32) + (u * 8)) + weights_at) + 544)];
          #pragma unroll
          for (int row_5 = 0; row_5 < 4; ++row_5) {
            acc_ptr[((row_5 * 4) + 2)] = (acc_ptr[((row_5 * 4) + 2)] + (x_ptr[((row_5 * 4) + u)] * w_2));
          }
          float w_3 = pool_ptr[((((k_2 * 32) + (u * 8)) + weights_at) + 816)];
          #pragma unroll
          for (int row_6 = 0; row_6 < 4; ++row_6) {
            acc_ptr[((row_6 * 4) + 3)] = (acc_ptr[((row_6 * 4) + 3)] + (x_ptr[((row_6 * 4) + u)] * w_3));
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
    for (int e = 0; e < 16; ++e) {
      int row_7 = ((along_1 * 4) + (e / 4));
      int column = (across_1 + ((e % 4) * 16));
      int instance = (start + row_7);
      int j = ((chunk * 64) + column);
      if ((instance < n) && (j < 256)) {
        float y0 = (acc_ptr[e] + packed_readout_stage0_ptr[((((j / 8) * 264) + (j % 8)) + 256)]);
        arena1_ptr[(((out0 * 256) + (instance * 256)) + j)] = y0;
      }
    }
    tvm_builtin_cuda_cta_sync();
  }
}
