"""GPAW's build settings for a machine with nothing but a C++ compiler: no MPI, libxc or BLAS.

    GPAW_CONFIG="$(python -m adit_integrations.gpaw_siteconfig)" pip install "adit-plugins[dft]"

GPAW's own build finds `mpic++` where Open MPI is installed without its headers, and fails there.
Without libxc the functionals LDA, PBE, RPBE and revPBE remain; NumPy and SciPy do the algebra.
"""

mpi = False
fftw = False
scalapack = False
nolibxc = True
noblas = True
compiler = "g++"
libraries: list[str] = []

if __name__ == "__main__":
    print(__file__)
