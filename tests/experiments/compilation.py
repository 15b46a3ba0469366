"""Options of XLA for tests, whose programs take longer to compile than to run.

Fusions go through LLVM IR alone rather than through MLIR, there is one module rather than one for
each core, and machine code is not optimized. A tiny model's step compiles in a third of the time.
"""

XLA_FLAGS = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)
