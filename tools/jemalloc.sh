#!/usr/bin/env bash
# Builds the private, static jemalloc that libisthmus contains. CMake runs it at configure time.
#
#   tools/jemalloc.sh [--debug] [--source TARBALL]
#
# The last line of standard output is the prefix: include/jemalloc/jemalloc.h, lib/libjemalloc.a.
# The result is kept in the user's cache under a name made of all that went into it; builders at
# the same time wait for each other. Needs a C compiler, make, cmake or bzip2.
set -euo pipefail

version=5.3.0
sha256=2db82d1e7119df3e71b7640219b6dfe84789bc0537983c3b7ac4f7189aecfeaa
upstream=https://github.com/jemalloc/jemalloc/releases/download/$version/jemalloc-$version.tar.bz2

# No thread of its own: the housekeeper purges. One automatic arena, because all blocks come from
# the arena made over the window. Classes up to 1 MiB go through the thread cache.
malloc_conf=background_thread:false,narenas:1,retain:true,dirty_decay_ms:1000,muzzy_decay_ms:0
malloc_conf+=,lg_tcache_max:20,tcache_nslots_large:4

flags=(
  --disable-initial-exec-tls       # else a running Python can't load us: "static TLS block"
  --with-jemalloc-prefix=ist_je_   # also names the variable IST_JE_MALLOC_CONF and /etc/ist_je_malloc.conf
  --with-private-namespace=ist_jep_
  --without-export                 # nothing of it is visible outside libisthmus
  --disable-cache-oblivious        # large blocks start on a page
  --disable-libdl                  # no dlsym while we are loaded
  --disable-cxx --disable-doc --disable-stats --disable-shared --enable-static
  "--with-malloc-conf=$malloc_conf"
)
cflags='-O2 -g1 -fPIC -fvisibility=hidden'

say() { echo "isthmus: $*" >&2; }
die() { say "$*"; exit 1; }

variant=release source=${ISTHMUS_JEMALLOC_SOURCE:-}
while (($#)); do
  case $1 in
    --debug) variant=debug flags+=(--enable-debug) ;;
    --source) source=$2; shift ;;
    *) die "unknown argument: $1" ;;
  esac
  shift
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-~/.cache}/isthmus # an unset HOME: bash takes ~ from the user database
mkdir -p "$cache"
missing=() # all at once: whoever may not install anything asks somebody else, once
cc=$(command -v gcc || command -v cc || command -v clang) || missing+=("a C compiler")
command -v make >/dev/null || missing+=(make)
command -v bzip2 >/dev/null || command -v cmake >/dev/null || missing+=(bzip2)
if ((${#missing[@]})); then
  die "building jemalloc needs what is not installed: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')." \
    "On Debian and Ubuntu: apt-get install gcc libc6-dev make bzip2"
fi
key=$(printf '%s\n' "$sha256" "${flags[@]}" "$cflags" "$("$cc" --version | head -n 1)" "$(uname -m)" |
  sha256sum | cut -c 1-16)
prefix=$cache/jemalloc-$key
tarball=$cache/jemalloc-$version.tar.bz2

matches() { [[ -f $1 && $(sha256sum <"$1") == "$sha256 "* ]]; }

download() { # download FILE
  if command -v curl >/dev/null; then curl -fsSL --connect-timeout 15 --max-time 120 -o "$1" "$upstream"
  elif command -v wget >/dev/null; then wget -q -T 15 -O "$1" "$upstream"
  else python3 -c 'import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])' "$upstream" "$1" 2>/dev/null; fi
}

# The order: what the caller named, what an earlier run kept, the distribution, upstream.
get_tarball() {
  local file=$work/tarball
  if [[ -n $source ]]; then
    matches "$source" || die "$source is not jemalloc-$version.tar.bz2 (SHA-256 $sha256)"
    cp "$source" "$file"
  elif matches "$tarball"; then
    return
  else
    say "getting jemalloc $version from the distribution's source package, a few seconds ..."
    mkdir "$work/apt"
    if "$here/apt_source.sh" "$work/apt" jemalloc "$version-" >&2; then mv "$work"/apt/*.orig.tar.bz2 "$file"; fi
    if ! matches "$file"; then
      say "getting jemalloc $version from upstream's release ..."
      download "$file" || die "no source of jemalloc $version: neither the distribution nor $upstream could be reached." \
        "Download it elsewhere, and name it by ISTHMUS_JEMALLOC_SOURCE=FILE in the environment"
    fi
    matches "$file" || die "the jemalloc $version downloaded has another SHA-256 than $sha256"
  fi
  mv "$file" "$tarball"
}

unpack() {
  if command -v bzip2 >/dev/null; then tar -xjf "$tarball"; else cmake -E tar xf "$tarball"; fi
}

build() {
  say "building jemalloc $version ($variant), 30 to 80 s on 2 cores, once per machine ..."
  get_tarball
  cd "$work"
  unpack
  cd "jemalloc-$version"
  # The caller's flags may be a sanitizer's; this library is the same for every build type.
  unset CFLAGS CPPFLAGS LDFLAGS CXXFLAGS MAKEFLAGS MAKELEVEL
  {
    ./configure CC="$cc" EXTRA_CFLAGS="$cflags" --prefix="$prefix" "${flags[@]}"
    make -j"$(nproc)" lib/libjemalloc_pic.a
  } >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "building jemalloc failed"; }
  mkdir -p "$work/out/lib" "$work/out/include/jemalloc"
  cp lib/libjemalloc_pic.a "$work/out/lib/libjemalloc.a"
  cp include/jemalloc/jemalloc.h "$work/out/include/jemalloc/"
  cp COPYING "$work/out/"
  mv "$work/out" "$prefix"
  say "jemalloc is ready: $prefix"
}

exec 9>"$cache/jemalloc.lock"
flock -n 9 || { say "waiting: somebody else is building jemalloc ..."; flock 9; }
if [[ ! -d $prefix ]]; then
  rm -rf "$cache"/.jemalloc-* # of a builder that was killed
  work=$(mktemp -d "$cache/.jemalloc-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  (build)
fi
echo "$prefix"
