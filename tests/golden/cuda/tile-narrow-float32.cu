extern "C" __global__ void __launch_bounds__(256, 2) readout_stage0_kernel(float* arena0_ptr, float* arena1_ptr, float* packed_readout_stage0_ptr, int* tables_ptr, int blocks, int step) {
  __shared__ alignas(64) int rows_ptr[16];
  __shared__ alignas(64) float pool_ptr[3312];
  alignas(64) float acc_ptr[4];
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
  int tiles = max(((n + 15) / 16), 1);
  for (int turn = 0; turn < (((((tiles * 16) + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int work = (((int)blockIdx.x) + (turn * blocks));
    int chunk = (work / tiles);
    int start = ((work - (chunk * tiles)) * 16);
    if (((int)threadIdx.x) < 16) {
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
    for (int i = 0; i < 4; ++i) {
      acc_ptr[i] = 0x0p+0f/*0.000000e+00*/;
    }
    tvm_builtin_cuda_cta_sync();
    int to_rows = 0;
    #pragma unroll
    for (int turn_1 = 0; turn_1 < 1; ++turn_1) {
      int piece = ((turn_1 * 256) + ((int)threadIdx.x));
      if (piece < 128) {
        int row = (piece / 8);
        int k = ((piece % 8) * 4);
        edbatch_copy_16((&(pool_ptr[(((row * 36) + to_rows) + k)])), (&(arena0_ptr[((rows_ptr[row] * 32) + k)])));
      }
    }
    int to_weights = 1728;
    #pragma unroll
    for (int turn_2 = 0; turn_2 < 1; ++turn_2) {
      int piece_1 = ((turn_2 * 256) + ((int)threadIdx.x));
      if (piece_1 < 128) {
        int part = (piece_1 / 64);
        int q = ((piece_1 % 64) * 4);
        edbatch_copy_16((&(pool_ptr[(((part * 264) + to_weights) + q)])), (&(packed_readout_stage0_ptr[(((chunk * 528) + (part * 264)) + q)])));
      }
    }
    edbatch_commit();
    edbatch_commit();
    edbatch_wait_1();
    tvm_builtin_cuda_cta_sync();
    for (int depth = 0; depth < 1; ++depth) {
      edbatch_commit();
      int across = (((int)threadIdx.x) % 16);
      int along = ((((int)threadIdx.x) / 16) % 4);
      int group = (((int)threadIdx.x) / 64);
      int rows_at = (((depth % 3) * 144) + (along * 36));
      int weights_at = ((1728 + ((depth % 3) * 528)) + (((across / 8) * 264) + (((int)threadIdx.x) % 8)));
      for (int turn_3 = 0; turn_3 < 2; ++turn_3) {
        int k_1 = ((turn_3 * 4) + group);
        #pragma unroll
        for (int row_1 = 0; row_1 < 4; ++row_1) {
          *(float4*)(x_ptr + (row_1 * 4)) = *(float4*)(pool_ptr + (((row_1 * 36) + (rows_at * 4)) + (k_1 * 4)));
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
    int along_1 = ((((int)threadIdx.x) / 16) % 4);
    int group_1 = (((int)threadIdx.x) / 64);
    #pragma unroll
    for (int e = 0; e < 4; ++e) {
      int row_3 = ((along_1 * 4) + e);
      int column = across_1;
      pool_ptr[(((group_1 * 256) + (row_3 * 16)) + column)] = acc_ptr[e];
    }
    tvm_builtin_cuda_cta_sync();
    if (((int)threadIdx.x) < 256) {
      float sum0 = (((pool_ptr[((int)threadIdx.x)] + pool_ptr[(((int)threadIdx.x) + 256)]) + pool_ptr[(((int)threadIdx.x) + 512)]) + pool_ptr[(((int)threadIdx.x) + 768)]);
      int instance = (start + (((int)threadIdx.x) / 16));
      int j = ((chunk * 16) + (((int)threadIdx.x) % 16));
      if ((instance < n) && (j < 256)) {
        float y0 = (sum0 + packed_readout_stage0_ptr[((((j / 8) * 264) + (j % 8)) + 256)]);
        arena1_ptr[(((out0 * 256) + (instance * 256)) + j)] = y0;
      }
    }
    tvm_builtin_cuda_cta_sync();
  }
}
