extern "C" __global__ void __launch_bounds__(256, 2) readout_stage0_kernel(float* arena0_ptr, float* arena1_ptr, float* packed_readout_stage0_ptr, int* tables_ptr, int blocks, int step) {
  __shared__ alignas(64) int rows_ptr[16];
  __shared__ alignas(64) float pool_ptr[3312];
  alignas(64) float acc_ptr[4];
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
      int warp = (((int)threadIdx.x) / 32);
      int band = 0;
      int side = (warp % 2);
      int group = (warp / 2);
      int rows_at = (((depth % 3) * 576) + (band * 576));
      int weights_at = ((1728 + ((depth % 3) * 528)) + (side * 264));
      for (int turn_3 = 0; turn_3 < 1; ++turn_3) {
        int block_of_k = ((turn_3 * 4) + group);
        int lane = (((int)threadIdx.x) % 32);
        uint a0 = edbatch_word_tfloat32((&(pool_ptr[(((((lane / 4) * 36) + (block_of_k * 8)) + rows_at) + (lane % 4))])));
        uint a1 = edbatch_word_tfloat32((&(pool_ptr[((((((lane / 4) * 36) + (block_of_k * 8)) + rows_at) + (lane % 4)) + 288)])));
        uint a2 = edbatch_word_tfloat32((&(pool_ptr[((((((lane / 4) * 36) + (block_of_k * 8)) + rows_at) + (lane % 4)) + 4)])));
        uint a3 = edbatch_word_tfloat32((&(pool_ptr[((((((lane / 4) * 36) + (block_of_k * 8)) + rows_at) + (lane % 4)) + 292)])));
          float v_ = pool_ptr[((((block_of_k * 64) + ((lane % 4) * 8)) + (lane / 4)) + weights_at)];
        uint b = (*(uint *)(&(v_)));
          float v__1 = pool_ptr[(((((block_of_k * 64) + ((lane % 4) * 8)) + (lane / 4)) + weights_at) + 32)];
        uint b_1 = (*(uint *)(&(v__1)));
        edbatch_multiply_tfloat32((&(acc_ptr[0])), a0, a1, a2, a3, b, b_1);
      }
      edbatch_wait_1();
      tvm_builtin_cuda_cta_sync();
    }
    int warp_1 = (((int)threadIdx.x) / 32);
    int band_1 = 0;
    int side_1 = (warp_1 % 2);
    int group_1 = (warp_1 / 2);
    int lane_1 = (((int)threadIdx.x) % 32);
    #pragma unroll
    for (int e = 0; e < 4; ++e) {
      int row_1 = (((band_1 * 16) + (lane_1 / 4)) + (8 * (e / 2)));
      int column = (((side_1 * 8) + (2 * (lane_1 % 4))) + (e % 2));
      pool_ptr[(((group_1 * 256) + (row_1 * 16)) + column)] = acc_ptr[e];
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
