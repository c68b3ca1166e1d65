# How it runs: the function, its schedule, its alarms; and the destinations and hosts that can be chosen.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "function" {
  assert {
    condition     = aws_lambda_function.relay[0].reserved_concurrent_executions == 2 && aws_lambda_function.relay[0].timeout == 900 && aws_lambda_function.relay[0].architectures == tolist(["arm64"])
    error_message = "two at once, as long as Lambda allows, arm64"
  }

  assert {
    condition     = aws_lambda_function.relay[0].package_type == "Image" && aws_lambda_function.relay[0].filename == null && aws_lambda_function.relay[0].runtime == null
    error_message = "an image in ECR is used"
  }

  assert {
    condition     = aws_lambda_function_event_invoke_config.relay[0].maximum_retry_attempts == 2 && aws_lambda_function_event_invoke_config.relay[0].maximum_event_age_in_seconds == 3600 && aws_lambda_function_event_invoke_config.relay[0].destination_config[0].on_failure[0].destination == aws_sqs_queue.failed[0].arn
    error_message = "retries, and then the queue"
  }

  assert {
    condition     = length(aws_lambda_function_url.relay) == 0 && aws_lambda_function.relay[0].logging_config[0].log_group == "/aws/lambda/relay" && aws_cloudwatch_log_group.relay.retention_in_days == 90
    error_message = "no URL unless asked for; its own log group, with an end"
  }
}

run "zip" {
  variables {
    image      = "docker-hub-url"
    lambda_zip = "tests/mocks/aws.tfmock.hcl" # any file
  }

  assert {
    condition     = aws_lambda_function.relay[0].runtime == "provided.al2023" && aws_lambda_function.relay[0].handler == "bootstrap" && aws_lambda_function.relay[0].source_code_hash == filebase64sha256("tests/mocks/aws.tfmock.hcl")
    error_message = "a zip that is deployed again when it changes"
  }
}

run "schedule" {
  assert {
    condition     = aws_scheduler_schedule.reconcile[0].schedule_expression == "rate(1 hour)" && aws_scheduler_schedule.reconcile[0].flexible_time_window[0].mode == "OFF" && jsondecode(aws_scheduler_schedule.reconcile[0].target[0].input) == { schedule = true }
    error_message = "every hour, with what the relay knows as a schedule"
  }

  assert {
    condition     = aws_scheduler_schedule.reconcile[0].target[0].retry_policy[0].maximum_retry_attempts == 3 && aws_scheduler_schedule.reconcile[0].target[0].dead_letter_config[0].arn == aws_sqs_queue.failed[0].arn
    error_message = "retries, and then the queue"
  }

  assert {
    condition     = aws_sqs_queue.failed[0].kms_master_key_id == "alias/aws/sqs" && jsondecode(aws_sqs_queue_policy.failed[0].policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"
    error_message = "the queue is encrypted, at rest and on the way"
  }
}

run "alarms" {
  variables {
    alarm_topic_arns = ["arn:aws:sns:us-east-1:123456789012:on-call"]
    source_name      = "production"
  }

  assert {
    condition = { for key, alarm in aws_cloudwatch_metric_alarm.relay : key => "${alarm.namespace} ${alarm.metric_name} ${alarm.threshold} ${alarm.treat_missing_data}" } == {
      pass-age                   = "KongCloudTrailRelay LastCompletePassAge 7200 breaching"
      pass-half-retention        = "KongCloudTrailRelay LastCompletePassAge 1296000 ignore"
      undelivered-age            = "KongCloudTrailRelay OldestUndeliveredAge 7200 ignore"
      undelivered-half-retention = "KongCloudTrailRelay OldestUndeliveredAge 1296000 ignore"
      announced-missing          = "KongCloudTrailRelay AnnouncedMissing 0 ignore"
      dead-letters               = "KongCloudTrailRelay DeadLetters 0 ignore"
    }
    error_message = "a dead schedule is an alarm, and silence ends none"
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.relay : alarm.dimensions["Source"] == "production" && alarm.alarm_actions == toset(["arn:aws:sns:us-east-1:123456789012:on-call"]) && alarm.ok_actions == alarm.alarm_actions && alarm.period == 3600])
    error_message = "of this source, to the topic, on hourly data"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.errors[0].treat_missing_data == "notBreaching" && aws_cloudwatch_metric_alarm.throttles[0].treat_missing_data == "notBreaching" && aws_cloudwatch_metric_alarm.failed_events[0].treat_missing_data == "notBreaching"
    error_message = "no errors are no data"
  }

  assert {
    condition     = [for alarm in aws_cloudwatch_metric_alarm.ledger_memory : alarm.dimensions["CacheClusterId"]] == ["relay-ledger-001", "relay-ledger-002"]
    error_message = "both nodes"
  }
}

# Two runs at once, and a third trigger that is throttled and retried, are a healthy relay on a busy gateway.
run "throttles_of_a_healthy_relay" {
  command = plan

  assert {
    condition     = one([for query in aws_cloudwatch_metric_alarm.throttles[0].metric_query : query.expression if query.return_data]) == "IF(FILL(invocations, 0) < 1, FILL(throttles, 0), 0)"
    error_message = "throttled while nothing ran"
  }

  assert {
    condition     = { for query in aws_cloudwatch_metric_alarm.throttles[0].metric_query : query.id => "${query.metric[0].metric_name} ${query.metric[0].stat} ${query.metric[0].period}" if !query.return_data } == { invocations = "Invocations Sum 300", throttles = "Throttles Sum 300" }
    error_message = "by the function's own counts"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.throttles[0].evaluation_periods * 300 > aws_lambda_function.relay[0].timeout && aws_cloudwatch_metric_alarm.throttles[0].datapoints_to_alarm == aws_cloudwatch_metric_alarm.throttles[0].evaluation_periods
    error_message = "for longer than a run can take"
  }
}

run "no_alarms" {
  variables {
    alarms = false
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.relay) + length(aws_cloudwatch_metric_alarm.errors) + length(aws_cloudwatch_metric_alarm.throttles) + length(aws_cloudwatch_metric_alarm.failed_events) + length(aws_cloudwatch_metric_alarm.ledger_memory) == 0
    error_message = "none"
  }
}

run "lake" {
  variables {
    create_lake = true
    channel_arn = ""
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.lake[0].template_body).Resources.Store.DeletionPolicy == "Retain" && jsondecode(aws_cloudformation_stack.lake[0].template_body).Resources.Store.Properties.AdvancedEventSelectors[0].FieldSelectors[0].Equals == ["ActivityAuditLog"] && jsondecode(aws_cloudformation_stack.lake[0].template_body).Resources.Channel.Properties.Source == "Custom"
    error_message = "a store for events from outside of AWS that stays, and a custom channel"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.relay.policy).Statement[0].Resource == ["arn:aws:cloudtrail:us-east-1:123456789012:channel/created"] && output.destination == "arn:aws:cloudtrail:us-east-1:123456789012:channel/created"
    error_message = "its channel is the one that is used"
  }
}

run "no_lake_by_default" {
  assert {
    condition     = length(aws_cloudformation_stack.lake) == 0 && length(aws_cloudformation_stack.audit) == 0
    error_message = "an existing channel needs neither"
  }
}

run "fargate" {
  variables {
    host             = "fargate"
    alarm_topic_arns = ["arn:aws:sns:us-east-1:123456789012:on-call"]
    fargate = {
      image              = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/relay:1"
      certificate_arn    = "arn:aws:acm:us-east-1:123456789012:certificate/c"
      plugin_cidr_blocks = ["10.2.0.0/16"]
    }
  }

  assert {
    condition     = length(aws_lambda_function.relay) + length(aws_scheduler_schedule.reconcile) + length(aws_sqs_queue.failed) + length(aws_iam_role_policy.network) == 0 && output.lambda_function == null
    error_message = "instead of Lambda, not beside it"
  }

  assert {
    condition     = aws_lb.relay[0].internal && aws_lb_listener.relay[0].protocol == "HTTPS" && aws_lb_listener.relay[0].ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06" && !aws_ecs_service.relay[0].network_configuration[0].assign_public_ip
    error_message = "internal, HTTPS"
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.balancer_from_range : rule.cidr_ipv4] == ["10.2.0.0/16"] && length(aws_vpc_security_group_ingress_rule.balancer_from_group) == 0
    error_message = "only the plugin may call it"
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.relay[0].container_definitions)[0].readonlyRootFilesystem && jsondecode(aws_ecs_task_definition.relay[0].container_definitions)[0].command == ["serve"] && !strcontains(aws_ecs_task_definition.relay[0].container_definitions, "the-token")
    error_message = "relay serve, read-only, without secrets"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.execution[0].policy).Statement[2].Resource == ["arn:aws:ecr:us-east-1:123456789012:repository/team/relay"] && jsondecode(aws_iam_role.relay.assume_role_policy).Statement[0].Principal.Service == "ecs-tasks.amazonaws.com"
    error_message = "it pulls that image"
  }

  assert {
    condition     = contains(jsondecode(aws_ecs_task_definition.relay[0].container_definitions)[0].environment, { name = "RELAY_EMF", value = "true" })
    error_message = "its metrics go to CloudWatch"
  }

  assert {
    condition = { for key, alarm in aws_cloudwatch_metric_alarm.relay : key => "${alarm.namespace} ${alarm.metric_name} ${alarm.dimensions["Source"]}" } == {
      pass-age                   = "KongCloudTrailRelay LastCompletePassAge kong"
      pass-half-retention        = "KongCloudTrailRelay LastCompletePassAge kong"
      undelivered-age            = "KongCloudTrailRelay OldestUndeliveredAge kong"
      undelivered-half-retention = "KongCloudTrailRelay OldestUndeliveredAge kong"
      announced-missing          = "KongCloudTrailRelay AnnouncedMissing kong"
      dead-letters               = "KongCloudTrailRelay DeadLetters kong"
    }
    error_message = "and are watched as the Lambda's are"
  }

  assert {
    condition     = "${aws_cloudwatch_metric_alarm.errors[0].namespace} ${aws_cloudwatch_metric_alarm.errors[0].metric_name} ${aws_cloudwatch_metric_alarm.errors[0].dimensions["Source"]}" == "KongCloudTrailRelay PassFailures kong" && length(aws_cloudwatch_metric_alarm.throttles) + length(aws_cloudwatch_metric_alarm.failed_events) == 0
    error_message = "failed passes in place of failed runs; there is nothing to throttle and no queue"
  }

  assert {
    condition     = toset(flatten([for s in jsondecode(aws_iam_role_policy.relay.policy).Statement : s.Action])) == toset(["cloudtrail-data:PutAuditEvents", "secretsmanager:GetSecretValue"])
    error_message = "the task delivers and reads its secrets, no more"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.tasks[0].treat_missing_data == "breaching" && output.relay_url == "https://internal-mock.us-east-1.elb.amazonaws.com"
    error_message = "no task is an alarm"
  }
}

run "fargate_needs_its_settings" {
  command         = plan
  expect_failures = [var.fargate]

  variables {
    host = "fargate"
  }
}
