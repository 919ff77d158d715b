"""Build the compiled engine. Switches, all off by default:

BITNET_CY_NATIVE=1    compile for this machine's CPU only
BITNET_CY_DEBUG=1     no optimisation, debug information
BITNET_CY_SANITIZE=   for example address,undefined (gcc or clang)
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

MODULES = ("kernels", "dense", "network", "screen", "workspace", "session", "encoder")
# One binary for every CPython from 3.11 on; 3.10 lacks parts of the stable ABI that Cython needs,
# and free-threaded CPython has none.
STABLE_ABI = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")
HEADERS = sorted(str(path) for path in Path("bitnet_cy/engine/csrc").rglob("*.h"))
OPENMP_PROGRAM = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
ADVICE = (
    "the compiler's own words are above. bitnet_cy needs a C11 compiler (gcc 9 or newer, clang, "
    "or MSVC 2022) and the headers of this Python; on Debian: apt-get install gcc python3-dev"
)


class BuildEngine(build_ext):
    """Adds the flags of the compiler at hand, and OpenMP where it links."""

    def build_extensions(self) -> None:
        # Here and not at the top: what only asks for metadata or an sdist translates nothing.
        from Cython.Build import cythonize

        compile_args, link_args = self.flags()
        openmp_compile, openmp_link = self.openmp()
        for extension in self.extensions:
            translated = cythonize([extension], build_dir=self.build_temp, force=self.force)
            extension.sources = translated[0].sources
            extension.extra_compile_args = compile_args + openmp_compile
            extension.extra_link_args = link_args + openmp_link
        self.parallel = self.parallel or min(len(self.extensions), os.cpu_count() or 1)
        try:
            super().build_extensions()
        except (CompileError, LinkError) as error:
            raise type(error)(f"{error}\n{ADVICE}") from None

    def flags(self) -> tuple[list[str], list[str]]:
        debug = os.environ.get("BITNET_CY_DEBUG") == "1"
        sanitizers = os.environ.get("BITNET_CY_SANITIZE")
        if self.compiler.compiler_type == "msvc":
            return ["/std:c11", *(["/Od", "/Zi"] if debug else ["/O2"])], []
        compile_args = ["-std=gnu11", "-fno-math-errno", "-fno-strict-aliasing"]
        # A product and a sum are fused only where a kernel says so: every compiler, the same bits.
        compile_args.append("-ffp-contract=off")
        if debug:
            compile_args += ["-O0", "-g"]
        else:  # the sanitizers' checks make -O3 compile for minutes
            compile_args += ["-O1", "-g"] if sanitizers else ["-O3", "-g0"]
        link_args: list[str] = []
        if os.environ.get("BITNET_CY_NATIVE") == "1":
            compile_args.append("-march=native")
        if sanitizers:
            compile_args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer"]
            link_args.append(f"-fsanitize={sanitizers}")
        return compile_args, link_args

    def openmp(self) -> tuple[list[str], list[str]]:
        """The flags with which an OpenMP program compiles and links, or none."""
        if self.compiler.compiler_type == "msvc":
            return ["/openmp"], []
        flags = ["-fopenmp"], ["-fopenmp"]
        if sys.platform == "darwin":
            flags = ["-Xpreprocessor", "-fopenmp"], ["-lomp"]
        if self.links(*flags):
            return flags
        print("bitnet_cy: OpenMP was not found; building for one thread", file=sys.stderr)
        return [], []

    def links(self, compile_args: list[str], link_args: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(OPENMP_PROGRAM)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=compile_args
                )
                self.compiler.link_executable(
                    objects, "probe", output_dir=folder, extra_postargs=link_args
                )
            except (CompileError, LinkError):
                return False
        return True


def extensions() -> list[Extension]:
    return [
        Extension(
            f"bitnet_cy.engine.{name}",
            [f"bitnet_cy/engine/{name}.pyx"],
            include_dirs=["bitnet_cy/engine"],
            define_macros=[("Py_LIMITED_API", "0x030b0000")] if STABLE_ABI else [],
            py_limited_api=STABLE_ABI,
            depends=HEADERS,
        )
        for name in MODULES
    ]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildEngine},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
