#!/bin/bash
@{prologue}
@{worker_init}
@{command}
