//! Mako's files as the drop-in (`include/plimsoll/replication_helper.hpp`) needs them: read, asked, and made a node.
#![allow(unsafe_code, reason = "functions that C calls, with pointers of its")]

use core::ffi::c_char;
use std::path::PathBuf;

use super::Status;
use super::barrier::{Failure, Out, OutArray, answer, path, reference, slice, text};
use super::node::NodeHandle;
use crate::node::config::mako::{Mako, Target};

/// Mako's files, taken together. Nothing changes it, and any thread may use it.
#[derive(Debug)]
pub struct MakoHandle {
    mako: Mako,
}

/// The name of the cluster that Mako's files describe, as of `plimsoll config import-mako`.
const CLUSTER: &str = "mako";

/// Reads Mako's YAML files, one after another. On PLIMSOLL_OK `*mako` is a handle that plimsoll_mako_free ends. From
/// any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_mako_load(
    files: *const *const c_char,
    count: usize,
    mako: *mut *mut MakoHandle,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in an array of strings, and room for the answer.
        let (files, mut out) = unsafe { (slice(files, count)?, Out::new(mako)?) };
        // SAFETY: likewise.
        let paths = files.iter().map(|&file| unsafe { path(file) });
        let paths = paths.collect::<Result<Vec<_>, Failure>>()?;
        let mako = Mako::load(&paths).map_err(|error| Failure::told(Status::Config, &error))?;
        out.set(Box::into_raw(Box::new(MakoHandle { mako })));
        Ok(())
    })
}

/// Frees the handle; null is nothing to free. From any thread, while no other uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_mako_free(mako: *mut MakoHandle) {
    answer(|| {
        if !mako.is_null() {
            // SAFETY: it comes of `plimsoll_mako_load`, and the caller gives it up.
            drop(unsafe { Box::from_raw(mako) });
        }
        Ok(())
    });
}

/// How many partitions there are. From any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_mako_partitions(mako: *const MakoHandle, count: *mut u32) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, and room for the answer.
        let (handle, mut out) = unsafe { (reference(mako)?, Out::new(count)?) };
        out.set(handle.mako.sites.len() as u32);
        Ok(())
    })
}

/// The name of a process's site in a partition, as a string of at most `capacity` bytes. From any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_mako_site(
    mako: *const MakoHandle,
    partition: u32,
    process: *const c_char,
    name: *mut c_char,
    capacity: usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle and a string.
        let (handle, process) = unsafe { (reference(mako)?, text(process)?) };
        let Some(line) = handle.mako.sites.get(partition as usize) else {
            return Err(Failure::because(Status::BadArgument, "there is no such partition in Mako's files"));
        };
        let is_there = |name: &str| handle.mako.processes.get(name).is_some_and(|at| at == process);
        let site = line.iter().find(|site| is_there(&site.name)).ok_or_else(|| {
            let what = format!(
                "no site of partition {partition} is in process {process}; look at -P and at `process:`"
            );
            Failure::told(Status::BadArgument, &what)
        })?;
        // SAFETY: the caller hands in room for the answer.
        unsafe { write_text(&site.name, name, capacity) }
    })
}

/// A process and its host: the `at`th of the `host:` map, by name. PLIMSOLL_BAD_ARGUMENT: there are no more. From any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_mako_host(
    mako: *const MakoHandle,
    at: usize,
    process: *mut c_char,
    process_capacity: usize,
    host: *mut c_char,
    host_capacity: usize,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle.
        let handle = unsafe { reference(mako)? };
        let Some((name, address)) = handle.mako.hosts.iter().nth(at) else {
            return Err(Failure::because(Status::BadArgument, "there are no more hosts in Mako's files"));
        };
        // SAFETY: the caller hands in room for the answers.
        unsafe {
            write_text(name, process, process_capacity)?;
            write_text(address, host, host_capacity)
        }
    })
}

/// Starts the node that takes the place of a process's sites, with its log in a directory below `data_dir` that is
/// called as the process. `lanes` is the cluster's, the same everywhere. On PLIMSOLL_OK `*node` is a handle that
/// plimsoll_node_close ends, and `*locale` the column of the process's sites. Blocks until the node is ready. From any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plimsoll_mako_node_open(
    mako: *const MakoHandle,
    process: *const c_char,
    data_dir: *const c_char,
    lanes: u16,
    node: *mut *mut NodeHandle,
    locale: *mut u32,
) -> Status {
    answer(|| {
        // SAFETY: the caller hands in a handle, two strings, and room for the answers.
        let (handle, process, data_dir) = unsafe { (reference(mako)?, text(process)?, path(data_dir)?) };
        // SAFETY: likewise.
        let (mut out, mut column) = unsafe { (Out::new(node)?, Out::new(locale)?) };
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| PathBuf::from(data_dir));
        let target = Target { cluster: CLUSTER.to_owned(), lanes, data_dir };
        let failed = |error| Failure::told(Status::Config, &error);
        let nodes = handle.mako.convert(&target).map_err(failed)?.nodes;
        let names: Vec<String> = nodes.iter().map(|(name, _)| name.clone()).collect();
        let Some((at, (_, mut config))) =
            nodes.into_iter().enumerate().find(|(_, (name, _))| name == process)
        else {
            let what =
                format!("process {process} has no replica that votes; those that have: {}", names.join(", "));
            return Err(Failure::told(Status::BadArgument, &what));
        };
        // Roles are told to who has subscribed to a stream.
        config.engine.streams = true;
        out.set(NodeHandle::start(config)?);
        column.set(at as u32);
        Ok(())
    })
}

/// Writes a string and the NUL that ends it.
///
/// # Safety
/// `buffer` is null or has room for `capacity` bytes.
unsafe fn write_text(text: &str, buffer: *mut c_char, capacity: usize) -> Result<(), Failure> {
    if text.len() >= capacity {
        let what = format!("{text:?} takes {} bytes", text.len() + 1);
        return Err(Failure::told(Status::TooSmall, &what));
    }
    // SAFETY: what the caller must see to.
    let mut out = unsafe { OutArray::new(buffer, capacity)? };
    out.fill(text.bytes().chain([0]).map(|byte| byte as c_char));
    Ok(())
}
